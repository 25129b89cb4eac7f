"""The dead-man's switch: ends a process whose interpreter is held; thread "heartbeat", and one of C's."""

import faulthandler
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from structlog.typing import FilteringBoundLogger

from jobrunner.settings import HELD_SHARE_MAX

BEAT_SECONDS = 0.5
#: In the stack of every thread that runs a job: the log line has no room for the others.
JOB_FRAME = "calling.py"


class DeadMansSwitch:
    """Armed while anything is in hand; unless armed again in time, dumps all stacks and exits with 1.

    It needs neither the interpreter's lock nor stderr, which may be a full pipe: the dump goes to a
    file, and the next worker to start here says so.
    """

    def __init__(
        self, *, owner: str, visibility_seconds: float, in_hand: Callable[[], int], log: FilteringBoundLogger
    ) -> None:
        self._limit_seconds = visibility_seconds * HELD_SHARE_MAX
        self._in_hand = in_hand
        self._lock = Lock()
        self._armed = False
        folder = _folder()
        # One app's worker reports what others of it left, and nobody else's.
        prefix = f"jobrunner-{os.getuid()}-{hashlib.sha256(owner.encode()).hexdigest()[:8]}"
        self._path = folder / f"{prefix}-{os.getpid()}.stacks"
        for left in folder.glob(f"{prefix}-*.stacks"):
            pid = left.stem.rpartition("-")[2]
            if left == self._path or (pid.isdecimal() and not _is_alive(int(pid))):
                with suppress(OSError):  # another worker that starts now reports it
                    _report(left, pid, folder / f"{prefix}.stacks", log)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            self.descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            effect = "the switch works, and what it dumps is lost; TMPDIR names another folder"
            log.warning("courtesy.failed", error=str(error), effect=effect)
            self.descriptor = os.open(os.devnull, os.O_WRONLY)

    def loop(self) -> None:
        """Arm it again and again: nothing but a held interpreter keeps this thread from it."""
        while True:
            time.sleep(BEAT_SECONDS)
            self.arm()

    def arm(self) -> None:
        """Start the time anew, or stop it when nothing is in hand."""
        with self._lock:
            if self._in_hand():
                with suppress(RuntimeError):  # no thread to be had now: the next beat tries again
                    faulthandler.dump_traceback_later(self._limit_seconds, exit=True, file=self.descriptor)
                    self._armed = True
            elif self._armed:
                faulthandler.cancel_dump_traceback_later()
                self._armed = False

    def arm_first(self) -> None:
        """Arm if nothing was in hand until now: what has just come may hold the interpreter before the next tick."""
        if not self._armed:
            self.arm()

    def close(self) -> None:
        """Take our empty file away: the last thing the process does."""
        faulthandler.cancel_dump_traceback_later()
        with suppress(OSError):
            self._path.unlink()

    def stamp(self) -> None:
        """Show on our empty file that we live: its time is all that a killed worker leaves. Raises OSError."""
        os.utime(self.descriptor)


def _folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # no folder at all that can be written
        return Path("/tmp")  # noqa: S108 - what is done there fails, and is said


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # it is another user's
    return True


def _report(left: Path, pid: str, kept: Path, log: FilteringBoundLogger) -> None:
    stacks = left.read_text(errors="replace")
    if not stacks:
        seen = datetime.fromtimestamp(left.stat().st_mtime, UTC).isoformat(timespec="seconds")
        left.unlink()
        cause = "SIGKILL (out of memory?), a crash, or a second signal; what it had in hand comes back by itself"
        log.warning("worker.killed", worker_pid=int(pid), last_seen_at=seen, cause=cause)
        return
    left.replace(kept)
    of_jobs = [thread for thread in stacks.split("\n\n") if JOB_FRAME in thread]
    log.error(
        "deadman.found",
        file=str(kept),
        stacks="\n\n".join(of_jobs) or stacks,
        cause="a job held the interpreter until the dead-man's switch ended its process",
    )
