"""Asks SQS for deliveries and hands them to the pool; threads "receiver-N"."""

import threading
import time

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import ExitCode, QueueError
from jobrunner.outcome import handed_back
from jobrunner.queue.endpoint import CONNECT_SECONDS
from jobrunner.queue.paced import PacedQueue
from jobrunner.queue.requests import POLL_MARGIN_SECONDS
from jobrunner.worker.batches import LOOK_SECONDS
from jobrunner.worker.deadman import DeadMansSwitch
from jobrunner.worker.hand import Hand
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.lease import Lease, State
from jobrunner.worker.pool import Pool
from jobrunner.worker.settler import Settler

#: A message's lease may have begun this long before its answer reached us. Not since the request
#: was sent: a long poll waits up to 20 s first, and the whole lease would look spent.
ANSWER_SECONDS_MAX = 1.0
#: A receive that is out for longer waits on an empty queue.
ROUND_TRIP_SECONDS = 0.5
#: Not stuck, but out of luck: a name that takes half a minute to resolve, to addresses that do not answer.
STUCK_SECONDS_MIN = 120.0


class Receiver:
    """One loop, run by several threads; `Hand` decides whose turn it is and for how many."""

    def __init__(
        self,
        *,
        queue: PacedQueue,
        wait_seconds: int,
        stop_when_empty: bool,
        hand: Hand,
        settler: Settler,
        pool: Pool,
        switch: DeadMansSwitch,
        inbox: Inbox,
        log: FilteringBoundLogger,
    ) -> None:
        self._queue = queue
        self._wait_seconds = wait_seconds
        self._stop_when_empty = stop_when_empty
        self._hand = hand
        self._settler = settler
        self._pool = pool
        self._switch = switch
        self._inbox = inbox
        self._log = log
        self._stopped = threading.Event()
        self._out_since: dict[int, float] = {}

    def loop(self) -> None:
        """Wait for a turn, receive, submit; until stopped."""
        while most := self._hand.next_ask():
            self._hold()
            self._pass_on(self._receive(most))
            # Not before: until what it brought is passed on, the stop must wait for it.
            self._out_since.pop(threading.get_ident(), None)

    def stop(self) -> None:
        """Receive no more; what a receive under way still brings is handed back."""
        self._stopped.set()
        self._hand.stop()

    def check(self) -> None:
        """End the process when a receive is out for three times its longest: its thread is stuck; on the keeper's."""
        seconds = time.monotonic() - min(self._out_since.copy().values(), default=time.monotonic())
        if seconds > max(STUCK_SECONDS_MIN, 3.0 * (self._wait_seconds + POLL_MARGIN_SECONDS + CONNECT_SECONDS)):
            self._log.error("receive.stuck", out_seconds=round(seconds))
            self._inbox.ask(ExitCode.POLL_STUCK)

    def poll_seconds_left(self) -> float:
        """Say for how long a poll of ours may still be given messages; 0 if none is out."""
        latest = max(self._out_since.copy().values(), default=None)
        return 0.0 if latest is None else max(0.0, latest + self._wait_seconds - time.monotonic())

    def is_out(self) -> bool:
        """Tell whether any receive is under way."""
        return bool(self._out_since)

    def may_bring_more(self) -> bool:
        """Tell whether a receive is out that is not just waiting on an empty queue."""
        latest = max(self._out_since.copy().values(), default=0.0)
        return time.monotonic() - latest < ROUND_TRIP_SECONDS

    def _receive(self, most: int) -> list[Lease]:
        started = self._out_since[threading.get_ident()] = time.monotonic()
        deliveries = []
        if not self._stopped.is_set():
            probing = self._queue.outage.includes("receive")
            try:
                deliveries = self._queue.receive(
                    most=most,
                    wait_seconds=self._wait_seconds,
                    visibility_timeout_seconds=self._hand.visibility_seconds,
                )
            except QueueError:
                probing = True  # nothing is known of what is there
            # A short poll that found nothing tells as little.
            if self._stop_when_empty and not (deliveries or probing or self._hand.busy()):
                self._inbox.ask(ExitCode.STOPPED)
        now = time.monotonic()
        fresh = self._hand.received(
            deliveries, asked=most, held_since=max(started, now - ANSWER_SECONDS_MAX), receive_seconds=now - started
        )
        if fresh:
            self._switch.arm_first()
        return fresh

    def _pass_on(self, fresh: list[Lease]) -> None:
        if self._stopped.is_set():
            for lease in self._hand.give_up_all(State.WAITING, where=lambda lease: lease in fresh):
                # Our own last poll is the likeliest to be given what we hand back: that attempt does not count.
                self._settler.release(lease, handed_back(lease.delivery.attempt - 1))
        else:
            self._pool.submit(fresh)

    def _hold(self) -> None:
        """Wait while more would only do harm."""
        # What is stuck first: it needs the turn that the last question takes.
        while seconds := self._settler.seconds_to_hold() or self._queue.outage.seconds_to_wait("receive"):
            if self._stopped.wait(min(seconds, LOOK_SECONDS)):
                return
