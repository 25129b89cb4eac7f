"""Where jobs and threads stand, for whoever sends SIGUSR1; main thread."""

import threading
import time

from structlog.typing import FilteringBoundLogger

from jobrunner.app.coroutines import stack_of_thread
from jobrunner.worker.awaiting import Awaiting
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease, State


def dump(*, hand: Hand, awaiting: Awaiting, log: FilteringBoundLogger) -> None:
    """Log every job in hand and every thread, a line each."""
    running = hand.all_in(State.RUNNING, State.AWAITING)
    for lease in hand.all_in(State.WAITING, State.DONE, State.RELEASING):
        log.warning("dump.job", **_facts(lease))
    for lease in running:
        seconds = round(time.monotonic() - lease.started_at, 1)
        log.warning("dump.job", **_facts(lease), running_seconds=seconds, stack=awaiting.stack_of(lease))
    jobs = {lease.thread_id for lease in running if lease.state is State.RUNNING}
    for thread in threading.enumerate():
        if thread.ident is not None and thread.ident not in jobs:
            log.warning("dump.thread", thread=thread.name, stack=stack_of_thread(thread.ident))


def _facts(lease: Lease) -> dict[str, object]:
    return {"state": lease.state.name.lower(), **lease.delivery.ids(), "lease_lost": lease.lost}
