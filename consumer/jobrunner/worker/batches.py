"""Collects items and sends them by the ten; `add` runs on any thread, `loop` on each of the sending ones."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from jobrunner.queue.requests import BATCH_MAX

#: How long a finished job waits for others to fill a batch. More saves requests;
#: less lowers the number of jobs that a crash just now would repeat.
LINGER_SECONDS = 0.1

#: While requests fail, look this often whether the pause is over: another action's success ends it for all.
LOOK_SECONDS = 0.25

Item = TypeVar("Item")


def is_due(*, count: int, waited_seconds: float, running: int) -> bool:
    """Send when ten are there, when the first of them has waited, or when nothing runs that could join."""
    return count >= BATCH_MAX or (count > 0 and (waited_seconds >= LINGER_SECONDS or running == 0))


class Batches(Generic[Item]):
    """A line of items and the rule that sends them.

    `send` returns the items to try again, `pause` the seconds to hold still before that, and `running`
    counts the jobs that may still add to a batch.
    """

    def __init__(
        self, *, send: Callable[[list[Item]], list[Item]], pause: Callable[[], float], running: Callable[[], int]
    ) -> None:
        self._send = send
        self._pause = pause
        self._running = running
        self._changed = threading.Condition(threading.Lock())
        self._line: deque[Item] = deque()
        self._first_at = 0.0
        self._sending = 0
        self._hurried = False

    def __len__(self) -> int:
        """Count what is not sent yet, or not known to be."""
        return len(self._line) + self._sending

    def add(self, item: Item) -> None:
        """Put an item in line; never waits for SQS."""
        with self._changed:
            self._line.append(item)
            if len(self._line) == 1:
                self._first_at = time.monotonic()
                self._changed.notify()
            elif len(self._line) == BATCH_MAX or self._running() == 0:
                self._changed.notify()

    def loop(self) -> None:
        """Send batch after batch, for ever."""
        while True:
            self._see_to(self._next())

    def hurry(self) -> None:
        """From now on send without lingering, one try each."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def wait_until_empty(self, deadline: float) -> None:
        """Return when all is sent, or at the deadline."""
        with self._changed:
            self._changed.wait_for(lambda: len(self) == 0, timeout=max(0.0, deadline - time.monotonic()))

    def _see_to(self, batch: list[Item]) -> None:
        again = self._send(batch)
        with self._changed:
            self._sending -= len(batch)
            if not self._hurried:
                self._line.extendleft(reversed(again))
            self._changed.notify_all()

    def _next(self) -> list[Item]:
        with self._changed:
            while (seconds := self._seconds_to_wait()) is None or seconds > 0:
                self._changed.wait(seconds)
            batch = [self._line.popleft() for _ in range(min(BATCH_MAX, len(self._line)))]
            self._sending += len(batch)
            self._first_at = time.monotonic()
            return batch

    def _seconds_to_wait(self) -> float | None:
        """Say how long until a batch may go; None if there is nothing to send."""
        if not self._line:
            return None
        if self._hurried:
            return 0.0
        waited = time.monotonic() - self._first_at
        if not is_due(count=len(self._line), waited_seconds=waited, running=self._running()):
            return LINGER_SECONDS - waited
        return min(self._pause(), LOOK_SECONDS)
