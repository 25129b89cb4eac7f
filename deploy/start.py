"""Process 1 of the container: runs supervisord, and exits 1 if it gave the web server up.

supervisord itself always exits 0, so no orchestrator would notice. With --listen this is supervisord's
event listener: a FATAL web leaves a marker and ends supervisord. A FATAL worker does not: webs that
serve requests must never go down because of a queue.

The stop, in STOP_SECONDS, which must be what the orchestrator gives (Docker: 10): the worker is told
first and takes 3 at most (a stuck one is killed after 4), then the web server has its share, and what
still runs, jobs on their last attempt in processes of their own, has what is left.
"""

import signal
import sys
import time

#: What came before supervisord could be told. First of all: process 1 ignores what it has no handler for.
SIGNALLED = []
if "--listen" not in sys.argv:
    for handled in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(handled, lambda number, _frame: SIGNALLED.append((number, time.monotonic())))

import ctypes  # noqa: E402 - after the handlers
import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import threading  # noqa: E402
from contextlib import suppress  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from pathlib import Path  # noqa: E402

DEFAULTS = {
    "PORT": "8000",
    "APP_DIR": str(Path(__file__).parent.parent),
    "WEB_APP": "web.app:app",
    "JOBRUNNER_PROCESSES": "1",
    "RUN_DIR": "/tmp",
    "STOP_SECONDS": "10",
}
MARKER, LOG = "web-is-fatal", "supervisord.log"
#: Of the stop time: the worker's part, what gunicorn needs beyond its own limit, and what is kept for the last steps.
WORKER_SECONDS, GUNICORN_SECONDS, SPARE_SECONDS = 4, 2, 1
#: supervisord waits for a second, then starts all its programs; later than this they have had their chance.
STARTING_SECONDS_MAX = 6
PR_SET_CHILD_SUBREAPER = 36
#: Of supervisord's own lines, those that somebody may look for; a stop that was asked for is no news.
NEWS = ("exited:", "gave up:", "killing", "CRIT", "ERRO")
#: And what is none: its socket is for the container's own supervisorctl.
NO_NEWS = "without any HTTP authentication checking"


def run():
    environment = {**DEFAULTS, **os.environ}
    stop_seconds = int(environment["STOP_SECONDS"])
    programs = 2 + int(environment["JOBRUNNER_PROCESSES"])  # its listener, the web server, the workers
    web_seconds = max(1, stop_seconds - WORKER_SECONDS - GUNICORN_SECONDS - SPARE_SECONDS)
    environment |= {"WEB_STOP_SECONDS": str(web_seconds), "WEB_KILL_SECONDS": str(web_seconds + GUNICORN_SECONDS)}
    folder = Path(environment["RUN_DIR"])
    (folder / MARKER).unlink(missing_ok=True)
    # Orphans come to us and are reaped, also where this is not process 1.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    relay(folder / LOG)
    config = Path(__file__).with_name("supervisord.conf")
    supervisord = subprocess.Popen(["supervisord", "--configuration", config], env=environment)
    code = supervise(supervisord, programs)
    if code < 0:  # killed, by the out-of-memory killer maybe: nobody else tells its programs
        say("supervisor.died", f"supervisord ended by {signal.Signals(-code).name}: its programs are told to stop")
        tell_the_rest()
    asked_at = min(
        (at for number, at in SIGNALLED if number in (signal.SIGTERM, signal.SIGINT)), default=time.monotonic()
    )
    wait_for_the_rest(asked_at + stop_seconds - SPARE_SECONDS)
    return 1 if (folder / MARKER).exists() else code if code >= 0 else 128 - code


def supervise(supervisord, programs):
    """Reap all that ends until supervisord does, and pass signals on; returns its code."""
    passed, starts_until = 0, time.monotonic() + STARTING_SECONDS_MAX
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == supervisord.pid:
            return os.waitstatus_to_exitcode(status)
        # Not while it starts its programs: what it signals between their fork and their exec is lost on them.
        if passed < len(SIGNALLED) and (time.monotonic() > starts_until or has_started(supervisord.pid, programs)):
            starts_until = 0
            os.kill(supervisord.pid, SIGNALLED[passed][0])  # Popen would look itself, and reap what we wait for
            passed += 1
        elif not pid:
            time.sleep(0.05)


def has_started(pid, programs):
    """Tell whether so many programs run under supervisord, and none of them is still its own image."""
    try:
        own = Path(f"/proc/{pid}/cmdline").read_bytes()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        lines = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    except OSError:
        return False
    return len(lines) >= programs and own not in lines


def tell_the_rest():
    """Tell what supervisord left behind, which is ours now, to stop."""
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGTERM)


def wait_for_the_rest(deadline):
    """Give what still runs the rest of the stop time: jobs on their last attempt, which no signal of ours ends."""
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            return


def relay(path):
    """Read supervisord's log, and say in one line of JSON which program ended how."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    # Opened for both, so that neither side waits for the other.
    log = os.fdopen(os.open(path, os.O_RDWR), buffering=1, errors="replace")

    def read():
        for line in log:
            text = line.rstrip()
            if any(word in text for word in NEWS) and NO_NEWS not in text:
                say("supervisor.said", text.split(" ", 2)[-1])

    threading.Thread(target=read, daemon=True).start()


def say(event, text):
    now = datetime.now(UTC).isoformat(timespec="milliseconds")[:23] + "Z"
    line = json.dumps({"timestamp": now, "level": "warning", "event": event, "text": text}, separators=(",", ":"))
    os.write(2, line.encode() + b"\n")


def listen():
    while True:
        print("READY", end="\n", flush=True)
        header = dict(pair.split(":") for pair in sys.stdin.readline().split())
        event = dict(pair.split(":") for pair in sys.stdin.read(int(header["len"])).split())
        say("supervisor.fatal", f"{event['groupname']} is FATAL: supervisord has given it up")
        if event["groupname"] == "web":
            Path(os.environ["RUN_DIR"], MARKER).touch()
            os.kill(os.getppid(), signal.SIGTERM)
        print("RESULT 2\nOK", end="", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(listen() if "--listen" in sys.argv else run())
    except (OSError, ValueError) as error:
        say("start.refused", f"{error}: look at STOP_SECONDS, JOBRUNNER_PROCESSES and RUN_DIR, which must be writable")
        sys.exit(2)
