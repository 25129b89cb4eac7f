"""The status file: what `consume` writes, for `jobrunner health` and `jobrunner status`; thread "reporter"."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from jobrunner.operate.workers import WRITE_SECONDS, Running, Worker
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease, State

#: A file is read in no time also where a thousand methods run.
METHODS_MAX = 50


class StatusFile:
    """One process's state, replaced whole so that a reader never sees half of it."""

    def __init__(self, *, path: Path, queue_url: str, state: Callable[[], str], hand: Hand) -> None:
        self._path = path.absolute()  # a job may change the working directory
        self._queue_url = queue_url
        self._state = state
        self._hand = hand
        self._written_at = -WRITE_SECONDS
        self._removed = False

    def write(self) -> None:
        """Write if it is time to; raises OSError."""
        if self._removed or time.monotonic() - self._written_at < WRITE_SECONDS:
            return
        worker = Worker(
            pid=os.getpid(),
            at=time.time(),
            state=self._state(),
            in_hand=len(self._hand),
            queue_url=self._queue_url,
            deleted=self._hand.deleted,
            running=running_in(self._hand),
        )
        draft = self._path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(asdict(worker)))
        draft.replace(self._path)
        self._written_at = time.monotonic()

    def remove(self) -> None:
        """Take the file away, also that of a dead worker: nothing is known of one that has stopped, or just starts."""
        self._removed = True
        with suppress(OSError):
            self._path.unlink()


def running_in(hand: Hand) -> tuple[Running, ...]:
    """Group what runs by method, that with the oldest job first."""
    now = hand.now()
    found: dict[str, list[Lease]] = {}
    for lease in hand.all_in(State.RUNNING, State.AWAITING, State.ALONE):
        found.setdefault(lease.method or str(lease.delivery.ids()["method"]), []).append(lease)
    oldest = {method: min(lease.started_at for lease in leases) for method, leases in found.items()}
    return tuple(
        Running(method=method, count=len(found[method]), oldest_seconds=round(now - oldest[method], 1))
        for method in sorted(found, key=lambda method: oldest[method])[:METHODS_MAX]
    )
