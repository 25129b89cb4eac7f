"""The status file: what `consume` writes (thread "reporter") and `jobrunner health` reads."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Written this often; older than three times that, the worker is dead, stuck or held.
WRITE_SECONDS = 5.0
STALE_SECONDS = 3 * WRITE_SECONDS


class StatusFile:
    """One process's state, replaced whole so that a reader never sees half of it."""

    def __init__(self, *, path: Path, state: Callable[[], str], in_hand: Callable[[], int]) -> None:
        self._path = path.absolute()  # a job may change the working directory
        self._state = state
        self._in_hand = in_hand
        self._written_at = -WRITE_SECONDS
        self._removed = False

    def write(self) -> None:
        """Write if it is time to; raises OSError."""
        if self._removed or time.monotonic() - self._written_at < WRITE_SECONDS:
            return
        status = {"pid": os.getpid(), "at": time.time(), "state": self._state(), "in_hand": self._in_hand()}
        draft = self._path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(status))
        draft.replace(self._path)
        self._written_at = time.monotonic()

    def remove(self) -> None:
        """Take the file away, also that of a dead worker: nothing is known of one that has stopped, or just starts."""
        self._removed = True
        with suppress(OSError):
            self._path.unlink()


def read(path: Path) -> tuple[bool, str]:
    """Judge a worker by its file: healthy or not, and why in one line."""
    try:
        status: dict[str, Any] = json.loads(path.read_text())
        age = time.time() - status["at"]
        line = f"{path}: pid {status['pid']} {status['state']}, {status['in_hand']} in hand, {age:.0f} s ago"
    except OSError as error:
        return False, f"{path}: no status: {error.strerror}. Is `consume --status-file` running?"
    except (ValueError, KeyError, TypeError) as error:
        return False, f"{path}: not a status file: {error!r}"
    if age > STALE_SECONDS:
        return False, f"{line}: stuck or dead, since it writes every {WRITE_SECONDS:.0f} s"
    return True, line
