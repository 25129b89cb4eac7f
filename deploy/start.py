"""Process 1 of the container: runs supervisord, and exits 1 if it gave the web server up.

supervisord itself always exits 0, so no orchestrator would notice. With --listen this is supervisord's
event listener: a FATAL web leaves a marker and ends supervisord. A FATAL worker does not: webs that
serve requests must never go down because of a queue.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

DEFAULTS = {"PORT": "8000", "APP_DIR": str(Path(__file__).parent.parent), "JOBRUNNER_PROCESSES": "1", "RUN_DIR": "/tmp"}
MARKER = "web-is-fatal"


def run():
    environment = {**DEFAULTS, **os.environ}
    marker = Path(environment["RUN_DIR"], MARKER)
    marker.unlink(missing_ok=True)
    config = Path(__file__).with_name("supervisord.conf")
    supervisord = subprocess.Popen(["supervisord", "--configuration", config], env=environment)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, lambda received, _frame: supervisord.send_signal(received))
    code = supervisord.wait()
    return 1 if marker.exists() else code


def listen():
    while True:
        print("READY", end="\n", flush=True)
        header = dict(pair.split(":") for pair in sys.stdin.readline().split())
        event = dict(pair.split(":") for pair in sys.stdin.read(int(header["len"])).split())
        print(f"{event['groupname']} is FATAL: supervisord has given it up", file=sys.stderr, flush=True)
        if event["groupname"] == "web":
            Path(os.environ["RUN_DIR"], MARKER).touch()
            os.kill(os.getppid(), signal.SIGTERM)
        print("RESULT 2\nOK", end="", flush=True)


if __name__ == "__main__":
    sys.exit(listen() if "--listen" in sys.argv else run())
