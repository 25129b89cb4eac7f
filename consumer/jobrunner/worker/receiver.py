"""Asks SQS for deliveries and hands them to the pool; threads "receiver-N"."""

import threading
import time
from collections.abc import Callable

from jobrunner.errors import QueueError
from jobrunner.message import Delivery
from jobrunner.outcome import handed_back
from jobrunner.queue.endpoint import CONNECT_SECONDS
from jobrunner.queue.outage import Outage
from jobrunner.queue.requests import POLL_MARGIN_SECONDS
from jobrunner.telemetry.metrics import Metrics
from jobrunner.worker.demand import Demand
from jobrunner.worker.lease import Lease, Leases
from jobrunner.worker.settler import Settler

#: A message's lease may have begun this long before its answer reached us. Not since the request
#: was sent: a long poll waits up to 20 s first, and the whole lease would look spent.
ANSWER_SECONDS_MAX = 1.0
#: A receive that is out for longer waits on an empty queue.
ROUND_TRIP_SECONDS = 0.5
#: While finished jobs cannot be deleted, look again this often.
STUCK_SECONDS = 0.5
#: More finished jobs than this are not taken on before their deletes catch up: a crash would repeat them all.
UNDELETED_MAX, BEHIND_SECONDS = 100, 0.01


class Receiver:
    """One loop, run by several threads; `Demand` decides whose turn it is and for how many."""

    def __init__(
        self,
        *,
        receive: Callable[..., list[Delivery]],
        wait_seconds: int,
        demand: Demand,
        leases: Leases,
        settler: Settler,
        submit: Callable[[list[Lease]], None],
        on_admitted: Callable[[], None],
        on_empty: Callable[[], None],
        outage: Outage,
        metrics: Metrics,
    ) -> None:
        self._ask = receive
        self._wait_seconds = wait_seconds
        self._demand = demand
        self._leases = leases
        self._settler = settler
        self._submit = submit
        self._on_admitted = on_admitted
        self._on_empty = on_empty
        self._outage = outage
        self._metrics = metrics
        self._stopped = threading.Event()
        self._out_since: dict[int, float] = {}

    def loop(self) -> None:
        """Wait for a turn, receive, submit; until stopped."""
        while most := self._demand.next_ask():
            self._hold()
            started = time.monotonic()
            fresh = [] if self._stopped.is_set() else self._receive(most)
            self._demand.received(asked=most, count=len(fresh), seconds=time.monotonic() - started)
            if self._stopped.is_set():
                self.hand_back(fresh, attempts_of_ours=1)
            else:
                self._submit(fresh)
                time.sleep(0)  # a worker first: the next receive takes the interpreter for a while
            # Not before: until what it brought is passed on, the stop must wait for it.
            self._out_since.pop(threading.get_ident(), None)

    def stop(self) -> None:
        """Receive no more; what a receive under way still brings is handed back."""
        self._stopped.set()
        self._demand.stop()

    def hand_back(self, leases: list[Lease], attempts_of_ours: int = 0) -> None:
        """Give deliveries that were not started back to the queue.

        While we stop, our own last poll is the likeliest to be given what we have just handed back:
        that receive is our doing, and does not count against the message's turn.
        """
        for lease in leases:
            self._settler.settle(lease, handed_back(lease.delivery.attempt - attempts_of_ours))
            self._demand.dropped()

    def seconds_out(self) -> float:
        """Say how long the oldest receive under way has been out; 0 if none is."""
        return time.monotonic() - min(self._out_since.copy().values(), default=time.monotonic())

    def stuck_seconds(self) -> float:
        """Say when a receive has been out for so long that its thread must be stuck."""
        return 3.0 * (self._wait_seconds + POLL_MARGIN_SECONDS + CONNECT_SECONDS)

    def is_out(self) -> bool:
        """Tell whether any receive is under way."""
        return bool(self._out_since)

    def may_bring_more(self) -> bool:
        """Tell whether a receive is out that is not just waiting on an empty queue."""
        latest = max(self._out_since.copy().values(), default=0.0)
        return time.monotonic() - latest < ROUND_TRIP_SECONDS

    def _receive(self, most: int) -> list[Lease]:
        asked_at = self._out_since[threading.get_ident()] = time.monotonic()
        probing = self._outage.includes("receive")
        try:
            deliveries = self._ask(
                most=most,
                wait_seconds=self._wait_seconds,
                visibility_timeout_seconds=int(self._leases.visibility_seconds),
                probing=probing,
            )
        except QueueError as error:
            self._metrics.event("receive_errors")
            self._outage.failed("receive", error)
            return []
        self._outage.succeeded("receive")
        if not deliveries:
            if not probing:  # a short poll may find nothing where there is something
                self._on_empty()
            return []
        leases = self._leases.admit(deliveries, max(asked_at, time.monotonic() - ANSWER_SECONDS_MAX))
        self._on_admitted()
        return leases

    def _hold(self) -> None:
        """Wait while more would only do harm."""
        while seconds := self._seconds_to_hold():
            if self._stopped.wait(seconds):
                return

    def _seconds_to_hold(self) -> float:
        # Stuck deletes first: they need the turn that the last question takes.
        if self._settler.is_stuck():
            return STUCK_SECONDS
        if len(self._settler.deletes) > UNDELETED_MAX:
            return BEHIND_SECONDS
        return self._outage.seconds_to_wait("receive")
