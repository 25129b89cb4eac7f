"""The queue as a worker has it: every answer is noted with the outage, which paces the tries; any thread."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jobrunner.errors import QueueError, RequestRefused
from jobrunner.message import Delivery
from jobrunner.queue.outage import Action, Outage
from jobrunner.queue.requests import Queue, Refusal
from jobrunner.telemetry.metrics import Metrics


class PacedQueue:
    """Makes requests as its queue does, one try each, and raises QueueError as it does.

    Whoever tries again asks `outage.seconds_to_wait` first. Raises OutageTooLong, which ends the process,
    when SQS has refused for so long that waiting is of no use.
    """

    def __init__(self, *, queue: Queue, outage: Outage, metrics: Metrics) -> None:
        self._queue = queue
        self.outage = outage
        self._metrics = metrics

    def receive(self, *, most: int, wait_seconds: int, visibility_timeout_seconds: int) -> list[Delivery]:
        """Receive; while that fails, by short polls for one message: a lost answer costs it an attempt."""
        probing = self.outage.includes("receive")
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
            self.outage.failed("delete", error)
            raise
        if passing := [refusal for refusal in refusals.values() if not refusal.lease_gone]:
            self.outage.failed("delete", QueueError(str(passing[0])))
        else:
            self.outage.succeeded("delete")
        return refusals

    def change_visibility(self, changes: Sequence[tuple[str, int]]) -> dict[int, Refusal]:
        """Renew or release deliveries."""
        with self._noted("change_visibility"):
            return self._queue.change_visibility(changes)

    def bury(self, delivery: Delivery, reason: str) -> None:
        """Put a copy among the dead letters; one try, which says nothing of the queue's own state."""
        self._queue.bury(delivery, reason)

    def send_anew(self, copies: Sequence[tuple[str, str | None]]) -> dict[int, Refusal]:
        """Send bodies, each with its group; one try."""
        return self._queue.send_anew(copies)

    @contextmanager
    def _noted(self, action: Action) -> Iterator[None]:
        try:
            yield
        except QueueError as error:
            if action == "receive":
                self._metrics.event("receive_errors")
            if action == "change_visibility" and isinstance(error, RequestRefused):
                self.outage.succeeded(action)  # it is an answer: no outage, and no use in waiting for another
            else:
                self.outage.failed(action, error)
            raise
        self.outage.succeeded(action)
