"""All that is in hand, and the slots asked for: one table, one lock, one owner of each count; any thread."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from jobrunner.message import Delivery
from jobrunner.worker.demand import Pace, ask
from jobrunner.worker.lease import Lease, State

#: A delivery that nobody started within this time is handed back for others to start.
UNSTARTED_SECONDS_MAX = 1.0


class Hand:
    """Owns every delivery in hand, keyed by message id: the same message is never in hand twice.

    Receivers wait here for their turn. One long poll is out when there is little to do, whatever the
    number of threads; another may join it only while receives come back full.
    """

    def __init__(
        self,
        *,
        threads: int,
        async_jobs: int = 0,
        visibility_seconds: int,
        attempts_max: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.visibility_seconds = visibility_seconds
        self._threads = threads
        self._async_jobs = async_jobs
        self._attempts_max = attempts_max
        self.now = clock  # the time that leases are counted in
        self._changed = threading.Condition(threading.Lock())
        self._leases: dict[str, Lease] = {}
        self._counts = [0] * len(State)
        self._pace = Pace(threads=threads, attempts_max=attempts_max, clock=clock)
        self._asked = self._receives = self._waiting = 0
        self._was_full = self._stopped = False
        self.deleted = 0

    def __len__(self) -> int:
        """Count the deliveries in hand."""
        return len(self._leases)

    def count(self, *states: State) -> int:
        """Count the deliveries in these states."""
        return sum(self._counts[state] for state in states)

    def busy(self) -> int:
        """Count those that have not ended."""
        return sum(self._counts[: State.DONE])

    def all_in(self, *states: State) -> list[Lease]:
        """List the deliveries in these states."""
        with self._changed:
            return [lease for lease in self._leases.values() if lease.state in states]

    def is_last_attempt(self, lease: Lease, *, ahead: int = 0) -> bool:
        """Tell whether this attempt, or one so many ahead, is the last; where the first is the last, none counts."""
        # Beyond it the queue has other rules by now than when we asked: then nothing is known of a last one.
        attempt, most = lease.delivery.attempt, self._attempts_max
        return most is not None and most > 1 and attempt <= most <= attempt + ahead

    # Receiving.

    def next_ask(self) -> int:
        """Wait for the next receive's turn; returns how many to ask for, 0 when stopped."""
        with self._changed:
            self._waiting += 1
            while not self._stopped and (most := self._ask()) == 0:
                self._changed.wait()
            self._waiting -= 1
            if self._stopped:
                return 0
            self._receives += 1
            self._asked += most
            self._wake()  # after a full receive another may join this one
            return most

    def received(
        self, deliveries: Sequence[Delivery], *, asked: int, held_since: float, receive_seconds: float
    ) -> list[Lease]:
        """End a receive's turn and take into hand what it brought; returns what is new.

        A message that is in hand already only gets its new receipt handle: with the old one SQS says
        yes to a delete and may not delete. It wakes nobody: the caller submits first, and its own
        next question lets others join.
        """
        with self._changed:
            self._receives -= 1
            self._asked -= asked
            self._was_full = len(deliveries) >= asked
            self._pace.received(busy=self.busy(), seconds=receive_seconds if self._was_full else None)
            return [lease for each in deliveries if (lease := self._admit(each, held_since))]

    def stop(self) -> None:
        """Let no receive go any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _admit(self, delivery: Delivery, held_since: float) -> Lease | None:
        known = self._leases.get(delivery.message_id)
        if known is not None and known.state is State.RELEASING:
            self._move(known, State.GONE)  # its release has worked: this is a delivery of its own
        elif known is not None:
            known.delivery = delivery
            known.received_at = known.held_since = held_since
            known.lost = known.renewing = False
            return None
        lease = Lease(delivery, held_since, held_since, self.visibility_seconds)
        self._leases[delivery.message_id] = lease
        self._counts[State.WAITING] += 1
        return lease

    def _ask(self) -> int:
        if self._receives and not self._was_full:
            return 0
        awaiting = self._counts[State.AWAITING]
        return ask(
            threads=self._threads,
            in_hand=self.busy() - awaiting,
            asked=self._asked,
            ahead=self._pace.ahead(),
            share=self._pace.async_share(),
            awaiting=awaiting,
            room=self._async_jobs - awaiting,
            may_err=self._pace.may_wait,
        )

    def _wake(self) -> None:
        if self._waiting and self._ask():
            self._changed.notify()

    # The way of one delivery: each step only from the state that it follows.

    def start(self, lease: Lease, state: State = State.RUNNING, *, after: State = State.WAITING) -> bool:
        """Mark a delivery as running on this thread; False if it is no longer ours to start.

        Or as ALONE, in a process of its own, which goes on without us; or as AWAITING, on the event loop.
        `after` is ALONE where a process of its own came to nothing.
        """
        with self._changed:
            if lease.state is not after:
                return False
            self._move(lease, state)
            if state is State.AWAITING:  # it holds no thread: another may be asked for
                self._wake()
            self._pace.started(is_async=state is State.AWAITING)
            lease.started_at = self.now()
            lease.thread_id = threading.get_ident()
            return True

    def excuse(self, lease: Lease, *, since: float) -> None:
        """Count none of the time from then on that a job has waited for another: it begins that much later."""
        with self._changed:
            lease.started_at += self.now() - max(since, lease.started_at)

    def finish(self, lease: Lease) -> bool:
        """Mark a running delivery as done: renewed until its delete is confirmed. False if it was given up."""
        return self._end(lease, State.DONE)

    def give_up(self, lease: Lease) -> bool:
        """Take a running delivery off renewal, for its release; False if it was given up before."""
        return self._end(lease, State.RELEASING)

    def give_back(self, lease: Lease) -> None:
        """Take a finished delivery off renewal, for its release: it could not be settled as it should."""
        with self._changed:
            if lease.state is State.DONE:
                self._move(lease, State.RELEASING)

    def give_up_unstarted(self) -> list[Lease]:
        """Give up what waits here while it could start elsewhere; not a last attempt, which has no elsewhere."""
        oldest = self.now() - UNSTARTED_SECONDS_MAX
        return self.give_up_all(
            State.WAITING, where=lambda lease: lease.received_at < oldest and not self.is_last_attempt(lease)
        )

    def give_up_all(self, *states: State, where: Callable[[Lease], bool] = lambda _: True) -> list[Lease]:
        """Give up all in these states, or those `where` something is true of them."""
        with self._changed:
            leases = [lease for lease in self._leases.values() if lease.state in states and where(lease)]
            for lease in leases:
                self._move(lease, State.RELEASING)
            if leases:
                self._wake()
            return leases

    def confirm(self, leases: Iterable[Lease]) -> None:
        """Forget deliveries that are deleted, released or nobody's business any more."""
        with self._changed:
            for lease in leases:
                self.deleted += lease.state in (State.DONE, State.ALONE)
                self._move(lease, State.GONE)
                if self._leases.get(lease.delivery.message_id) is lease:
                    del self._leases[lease.delivery.message_id]
            self._wake()

    def _end(self, lease: Lease, state: State) -> bool:
        with self._changed:
            if lease.state not in (State.RUNNING, State.ALONE, State.AWAITING):
                return False
            if lease.state is not State.AWAITING:
                self._pace.finished(self.now() - lease.started_at)
            self._move(lease, state)
            self._wake()
            return True

    def _move(self, lease: Lease, state: State) -> None:
        self._counts[lease.state] -= 1
        self._counts[state] += 1
        lease.state = state

    # Leases.

    def due(self) -> list[Lease]:
        """List the leases to renew now, once each; what waits for a thread is renewed only on its last attempt."""
        now = self.now()
        with self._changed:
            found = [lease for lease in self._leases.values() if self._is_kept(lease) and lease.is_due(now)]
            for lease in found:
                lease.renewing = True
            return found

    def renewed(self, lease: Lease, handle: str, at: float) -> None:
        """Start the lease anew, unless the message came again meanwhile under another handle."""
        with self._changed:
            if lease.delivery.receipt_handle == handle:
                lease.held_since = at
                lease.renewing = False

    def not_renewed(self, lease: Lease) -> None:
        """Let a lease be due again: its renewal was not answered."""
        with self._changed:
            lease.renewing = False

    def lose(self, lease: Lease, handle: str) -> bool:
        """Mark a lease as lost; False if nobody need be told.

        That is: it came back under another handle, its delete crossed the renewal, or its own process
        sees to it.
        """
        with self._changed:
            lease.renewing = False
            if lease.delivery.receipt_handle != handle or lease.lost:
                return False
            lease.lost = lease.state in (State.WAITING, State.RUNNING, State.AWAITING)
            return lease.lost

    def _is_kept(self, lease: Lease) -> bool:
        return lease.state in (State.RUNNING, State.ALONE, State.AWAITING, State.DONE) or (
            lease.state is State.WAITING and self.is_last_attempt(lease)
        )
