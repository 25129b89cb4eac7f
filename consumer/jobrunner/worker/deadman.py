"""The dead-man's switch: ends a process whose interpreter is held; a C thread of `faulthandler` does it."""

import faulthandler
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from structlog.typing import FilteringBoundLogger

from jobrunner.settings import HELD_SHARE_MAX

#: In the stack of every thread that runs a job: the log line has no room for the others.
JOB_FRAME = "execution.py"


class DeadMansSwitch:
    """Armed while anything is in hand; unless armed again in time, dumps all stacks and exits with 1.

    It needs neither the interpreter's lock nor stderr, which may be a full pipe: the dump goes to a
    file, and the next worker to start here says so.
    """

    def __init__(self, *, visibility_seconds: float, in_hand: Callable[[], int], log: FilteringBoundLogger) -> None:
        self._limit_seconds = visibility_seconds * HELD_SHARE_MAX
        self._in_hand = in_hand
        self._lock = Lock()
        self._armed = False
        folder, prefix = Path(tempfile.gettempdir()), f"jobrunner-{os.getuid()}"
        self._path = folder / f"{prefix}-{os.getpid()}.stacks"
        for left in folder.glob(f"{prefix}-*.stacks"):
            if left == self._path or not _is_alive(int(left.stem.rpartition("-")[2])):
                with suppress(FileNotFoundError):  # another worker that starts now reports it
                    _report(left, folder / f"{prefix}.stacks", log)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)

    def arm(self) -> None:
        """Start the time anew, or stop it when nothing is in hand: at each tick of the keeper."""
        with self._lock:
            if self._in_hand():
                faulthandler.dump_traceback_later(self._limit_seconds, exit=True, file=self._descriptor)
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
        self._path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _report(left: Path, kept: Path, log: FilteringBoundLogger) -> None:
    stacks = left.read_text(errors="replace")
    if not stacks:
        left.unlink(missing_ok=True)
        return
    left.replace(kept)
    of_jobs = [thread for thread in stacks.split("\n\n") if JOB_FRAME in thread]
    log.error(
        "deadman.found",
        file=str(kept),
        stacks="\n\n".join(of_jobs) or stacks,
        cause="a job held the interpreter until the dead-man's switch ended its process",
    )
