"""The queue as a worker has it: every answer is noted with the outage, which paces the tries; any thread."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from jobrunner.errors import QueueError, RequestRefused
from jobrunner.message import Delivery
from jobrunner.queue.outage import Outage
from jobrunner.queue.requests import Queue, Refusal
from jobrunner.telemetry.metrics import Metrics

Action = Literal["receive", "delete", "change_visibility"]


class PacedQueue:
    """Makes requests as its queue does, one try each, and raises QueueError as it does.

    Whoever tries again asks `seconds_to_wait` first. Raises OutageTooLong, which ends the process,
    when SQS has refused for so long that waiting is of no use.
    """

    def __init__(self, *, queue: Queue, outage: Outage, metrics: Metrics) -> None:
        self._queue = queue
        self._outage = outage
        self._metrics = metrics

    def receive(self, *, most: int, wait_seconds: int, visibility_timeout_seconds: int) -> list[Delivery]:
        """Receive; while that fails, by short polls for one message: a lost answer costs it an attempt."""
        probing = self.is_failing("receive")
        with self._noted("receive"):
            return self._queue.receive(
                most=1 if probing else most,
                wait_seconds=wait_seconds,
                visibility_timeout_seconds=visibility_timeout_seconds,
                probing=probing,
            )

    def delete(self, handles: Sequence[str]) -> dict[int, Refusal]:
        """Delete deliveries; a refusal that may pass counts as a failure of the action."""
        try:
            refusals = self._queue.delete(handles)
        except QueueError as error:
            self._outage.failed("delete", error)
            raise
        if passing := [refusal for refusal in refusals.values() if not refusal.lease_gone]:
            self._outage.failed("delete", QueueError(str(passing[0])))
        else:
            self._outage.succeeded("delete")
        return refusals

    def change_visibility(self, changes: Sequence[tuple[str, int]]) -> dict[int, Refusal]:
        """Renew or release deliveries."""
        with self._noted("change_visibility"):
            return self._queue.change_visibility(changes)

    def bury(self, delivery: Delivery, reason: str) -> None:
        """Put a copy among the dead letters; one try, which says nothing of the queue's own state."""
        self._queue.bury(delivery, reason)

    def is_unreachable(self) -> bool:
        """Tell whether anything at all fails now."""
        return self._outage.is_on()

    def is_failing(self, action: Action) -> bool:
        """Tell whether this action failed the last time."""
        return self._outage.includes(action)

    def seconds_to_wait(self, action: Action) -> float:
        """Say how long this action must hold still; 0 means go."""
        return self._outage.seconds_to_wait(action)

    def nothing_left(self, action: Action) -> None:
        """Note that nothing is left to try this action on: what failed is done with, one way or the other."""
        self._outage.succeeded(action)

    @contextmanager
    def _noted(self, action: Action) -> Iterator[None]:
        try:
            yield
        except QueueError as error:
            if action == "receive":
                self._metrics.event("receive_errors")
            if action == "change_visibility" and isinstance(error, RequestRefused):
                self._outage.succeeded(action)  # it is an answer: no outage, and no use in waiting for another
            else:
                self._outage.failed(action, error)
            raise
        self._outage.succeeded(action)
