"""The deliveries in hand and how long they are ours: one table, one lock, pure arithmetic; any thread."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from jobrunner.message import Delivery
from jobrunner.settings import VISIBILITY_SECONDS_MAX

#: A lease is renewed when a third of it is gone: two more tries fit before it ends.
RENEW_AT = 1 / 3
#: A delivery that nobody started within this time is handed back for others to start.
UNSTARTED_SECONDS_MAX = 1.0
#: AWS counts the 12 hours from its own receipt of the message and refuses the last seconds.
CAP_MARGIN_SECONDS = 10


class State(Enum):
    """How far a delivery has come."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Lease:
    """One delivery in hand. Times are monotonic; `held_since` is when its lease last began."""

    delivery: Delivery
    received_at: float
    held_since: float
    state: State = State.WAITING
    started_at: float = 0.0
    thread_id: int = 0
    lost: bool = False
    overdue: bool = False
    alone: bool = False


class Leases:
    """Owns every delivery in hand, keyed by message id: the same message is never in hand twice."""

    def __init__(self, *, visibility_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.visibility_seconds = visibility_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._in_hand: dict[str, Lease] = {}

    def now(self) -> float:
        """Tell the time that leases are counted in."""
        return self._clock()

    def __len__(self) -> int:
        """Count the deliveries in hand."""
        return len(self._in_hand)

    def admit(self, deliveries: Iterable[Delivery], asked_at: float) -> list[Lease]:
        """Take deliveries into hand; returns those that are new.

        A message that is in hand already only gets its new receipt handle: with the old one SQS
        says yes to a delete and may not delete. `asked_at` is before the receive was sent, so that
        our idea of a lease always ends before SQS's.
        """
        new = []
        with self._lock:
            for delivery in deliveries:
                known = self._in_hand.get(delivery.message_id)
                if known is None:
                    lease = Lease(delivery, asked_at, asked_at)
                    self._in_hand[delivery.message_id] = lease
                    new.append(lease)
                else:
                    known.delivery = delivery
                    known.received_at = known.held_since = asked_at
                    known.lost = False
        return new

    def start(self, lease: Lease) -> bool:
        """Mark a delivery as running on this thread; False if it is no longer ours to start."""
        with self._lock:
            if lease.state is not State.WAITING:
                return False
            lease.state = State.RUNNING
            lease.started_at = self._clock()
            lease.thread_id = threading.get_ident()
            return True

    def finish(self, lease: Lease) -> bool:
        """Mark a running delivery as done: renewed until its delete is confirmed. False if it was given up."""
        with self._lock:
            if lease.state is not State.RUNNING:
                return False
            lease.state = State.DONE
            return True

    def give_up(self, lease: Lease, *only_in: State) -> bool:
        """Take a delivery out of hand, off renewal; False if it is not in one of these states."""
        with self._lock:
            if lease.state not in only_in:
                return False
            self._forget(lease)
            return True

    def confirm(self, leases: Iterable[Lease]) -> None:
        """Forget deliveries whose messages are deleted."""
        with self._lock:
            for lease in leases:
                self._forget(lease)

    def all_in(self, *states: State) -> list[Lease]:
        """List the deliveries in these states."""
        with self._lock:
            return [lease for lease in self._in_hand.values() if lease.state in states]

    def unstarted_too_long(self) -> list[Lease]:
        """List what waits here while it could start elsewhere."""
        oldest = self._clock() - UNSTARTED_SECONDS_MAX
        return [lease for lease in self.all_in(State.WAITING) if lease.received_at < oldest]

    def due(self) -> list[Lease]:
        """List the leases to renew now; what has not started is never renewed."""
        third = self._clock() - self.visibility_seconds * RENEW_AT
        return [
            lease
            for lease in self.all_in(State.RUNNING, State.DONE)
            if lease.held_since <= third and not lease.lost and self.renewal_seconds(lease) > 0
        ]

    def renewal_seconds(self, lease: Lease) -> int:
        """Say for how long a lease may be renewed: SQS ends all of them 12 hours after the receive."""
        left = VISIBILITY_SECONDS_MAX - CAP_MARGIN_SECONDS - (self._clock() - lease.received_at)
        return int(min(self.visibility_seconds, left))

    def renewed(self, lease: Lease, handle: str, at: float) -> None:
        """Start the lease anew, unless the message came again meanwhile under another handle."""
        with self._lock:
            if lease.delivery.receipt_handle == handle:
                lease.held_since = at

    def lose(self, lease: Lease, handle: str) -> bool:
        """Mark a lease as lost; False if it was lost before or has come back under another handle."""
        with self._lock:
            if lease.lost or lease.state is State.GONE or lease.delivery.receipt_handle != handle:
                return False
            lease.lost = True
            return True

    def seconds_left(self, lease: Lease) -> float:
        """Say how long the message is surely hidden from others."""
        return lease.held_since + self.visibility_seconds - self._clock()

    def _forget(self, lease: Lease) -> None:
        lease.state = State.GONE
        if self._in_hand.get(lease.delivery.message_id) is lease:
            del self._in_hand[lease.delivery.message_id]
