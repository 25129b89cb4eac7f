"""Where jobs and threads stand: for the line of a job over its limit, and for whoever sends SIGUSR1; any thread."""

import sys
import threading
import time
import traceback
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease, State


class Stacks:
    """Reads other threads' frames; `coroutine_stack` knows those of jobs that the event loop runs."""

    def __init__(
        self, *, hand: Hand, coroutine_stack: Callable[[Lease], str | None], log: FilteringBoundLogger
    ) -> None:
        self._hand = hand
        self._coroutine_stack = coroutine_stack
        self._log = log

    def of_job(self, lease: Lease) -> str:
        """Show where a running job stands."""
        return self._coroutine_stack(lease) or stack_of_thread(lease.thread_id)

    def dump(self) -> None:
        """Log every job in hand and every thread, a line each."""
        running = self._hand.all_in(State.RUNNING, State.AWAITING)
        for lease in self._hand.all_in(State.WAITING, State.DONE, State.RELEASING):
            self._log.warning("dump.job", **_facts(lease))
        for lease in running:
            seconds = round(time.monotonic() - lease.started_at, 1)
            self._log.warning("dump.job", **_facts(lease), running_seconds=seconds, stack=self.of_job(lease))
        jobs = {lease.thread_id for lease in running if lease.state is State.RUNNING}
        for thread in threading.enumerate():
            if thread.ident is not None and thread.ident not in jobs:
                self._log.warning("dump.thread", thread=thread.name, stack=stack_of_thread(thread.ident))


def _facts(lease: Lease) -> dict[str, object]:
    return {"state": lease.state.name.lower(), **lease.delivery.ids(), "lease_lost": lease.lost}


def stack_of_thread(thread_id: int) -> str:
    """Show where a thread stands."""
    frame = sys._current_frames().get(thread_id)
    return "".join(traceback.format_stack(frame)) if frame else "the thread has ended"
