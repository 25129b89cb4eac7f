"""Worker threads: each takes a delivery, runs it and settles it; threads "worker-N"."""

from queue import SimpleQueue

from jobrunner.worker.alone import Alone
from jobrunner.worker.awaiting import Awaiting
from jobrunner.worker.execution import Execution
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease
from jobrunner.worker.settler import Settler


class Pool:
    """The line of deliveries that wait for a thread; bounded by what `Hand` asks for."""

    def __init__(self, *, execution: Execution, alone: Alone, awaiting: Awaiting, hand: Hand, settler: Settler) -> None:
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
