"""Worker threads: each takes a delivery, runs it and settles it; threads "worker-N"."""

from collections.abc import Callable
from queue import SimpleQueue

from consumer.demand import Demand
from consumer.lease import Lease, Leases
from consumer.message import Delivery
from consumer.outcome import Outcome
from consumer.settler import Settler


class Pool:
    """The line of deliveries that wait for a thread; bounded by what `Demand` asks for."""

    def __init__(self, *, run: Callable[[Delivery], Outcome], leases: Leases, settler: Settler, demand: Demand) -> None:
        self._run = run
        self._leases = leases
        self._settler = settler
        self._demand = demand
        self._line: SimpleQueue[Lease] = SimpleQueue()

    def submit(self, leases: list[Lease]) -> None:
        """Put deliveries in line; never waits."""
        for lease in leases:
            self._line.put(lease)

    def loop(self) -> None:
        """Take, run, settle, for ever."""
        while True:
            lease = self._line.get()
            # What waited for too long, or for a process that stops, was handed back meanwhile.
            if self._leases.start(lease):
                outcome = self._run(lease.delivery)
                self._demand.finished()
                self._settler.settle(lease, outcome)
