"""Worker threads: each takes a delivery, runs it and settles it; threads "worker-N"."""

from collections.abc import Callable
from queue import SimpleQueue

from jobrunner.message import Delivery
from jobrunner.outcome import Outcome
from jobrunner.worker.demand import Demand
from jobrunner.worker.lease import Lease, Leases
from jobrunner.worker.settler import Settler


class Pool:
    """The line of deliveries that wait for a thread; bounded by what `Demand` asks for.

    `run_alone` is for last attempts, those of number `attempts_max`. It may return None: settled already.
    """

    def __init__(
        self,
        *,
        run: Callable[[Delivery], Outcome],
        run_alone: Callable[[Delivery], Outcome | None],
        attempts_max: int | None,
        leases: Leases,
        settler: Settler,
        demand: Demand,
    ) -> None:
        self._run = run
        self._run_alone = run_alone
        self._attempts_max = attempts_max
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
                lease.alone = self._is_last_attempt(lease.delivery)
                outcome = (self._run_alone if lease.alone else self._run)(lease.delivery)
                self._demand.finished(self._leases.now() - lease.started_at)
                if outcome is None:
                    self._leases.confirm([lease])
                else:
                    self._settler.settle(lease, outcome)

    def _is_last_attempt(self, delivery: Delivery) -> bool:
        # Where the first attempt is the last, every job would pay for a process of its own.
        return self._attempts_max is not None and 1 < self._attempts_max <= delivery.attempt
