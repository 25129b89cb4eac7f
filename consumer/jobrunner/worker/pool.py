"""Worker threads: each takes a delivery, runs it and settles it; threads "worker-N"."""

from queue import SimpleQueue
from typing import Protocol

from jobrunner.message import Delivery
from jobrunner.outcome import Outcome
from jobrunner.worker.execution import Prepared
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease
from jobrunner.worker.settler import Settler


class Runs(Protocol):
    """Runs a delivery here."""

    def prepare(self, delivery: Delivery) -> Prepared:
        """Find out what it asks for; nothing has run yet."""

    def run(self, prepared: Prepared) -> Outcome:
        """Run it on this thread, and say how it ended."""


class Awaits(Protocol):
    """Runs `async def` jobs, which need no thread."""

    def submit(self, lease: Lease, prepared: Prepared) -> None:
        """Put one in line; never waits."""


class RunsAlone(Protocol):
    """Runs deliveries on their last attempt, apart from all others."""

    def run(self, lease: Lease) -> None:
        """Wait for its turn, run it and settle it."""


class Pool:
    """The line of deliveries that wait for a thread; bounded by what `Hand` asks for."""

    def __init__(self, *, execution: Runs, alone: RunsAlone, awaiting: Awaits, hand: Hand, settler: Settler) -> None:
        self._execution = execution
        self._alone = alone
        self._awaiting = awaiting
        self._hand = hand
        self._settler = settler
        self._line: SimpleQueue[Lease] = SimpleQueue()

    def submit(self, leases: list[Lease]) -> None:
        """Put deliveries in line; never waits."""
        for lease in leases:
            self._line.put(lease)

    def loop(self) -> None:
        """Take, run, settle, for ever."""
        while True:
            self._see_to(self._line.get())

    def _see_to(self, lease: Lease) -> None:
        if self._hand.is_last_attempt(lease):
            self._alone.run(lease)
            return
        prepared = self._execution.prepare(lease.delivery)
        lease.method = prepared.method
        if prepared.is_async:
            self._awaiting.submit(lease, prepared)
        # What waited for too long, or for a process that stops, was handed back meanwhile.
        elif self._hand.start(lease):
            self._settler.settle(lease, self._execution.run(prepared))
