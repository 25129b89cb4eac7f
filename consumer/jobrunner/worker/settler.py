"""Carries outcomes out: the only place where a message leaves the queue; threads "deleter-N"."""

from collections.abc import Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import MalformedMessage, QueueError
from jobrunner.message import Delivery
from jobrunner.outcome import Outcome, handed_back
from jobrunner.queue.paced import PacedQueue
from jobrunner.queue.requests import batches
from jobrunner.telemetry.metrics import Metrics
from jobrunner.worker.batches import Batches
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease, State
from jobrunner.worker.visibility import Visibility

#: Outcomes of deliveries whose jobs did not end here: nobody else counts them.
UNFINISHED = ("handed_back", "timed_out", "died")
#: More finished jobs than this are not taken on before their requests catch up: a crash would repeat them all.
UNSETTLED_MAX = 100
#: While finished jobs cannot be deleted, look again this often; while they are only many, this often.
STUCK_SECONDS, BEHIND_SECONDS = 0.5, 0.01


class Settler:
    """Turns outcomes into deletes and releases. A finished delivery stays leased until its delete is confirmed."""

    def __init__(
        self, *, queue: PacedQueue, hand: Hand, visibility: Visibility, metrics: Metrics, log: FilteringBoundLogger
    ) -> None:
        self._queue = queue
        self._hand = hand
        self._visibility = visibility
        self._metrics = metrics
        self._log = log
        self.deletes: Batches[Lease] = Batches(
            send=self._delete, pause=lambda: queue.outage.seconds_to_wait("delete"), running=hand.busy
        )

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        """Carry out how a running delivery ended; nothing if it was given up meanwhile."""
        if outcome.reason:
            if self._hand.finish(lease):  # from here on nobody hands it back
                self._bury(lease, outcome)
            return
        if outcome.release_seconds is None:
            if self._hand.finish(lease):
                self.deletes.add(lease)
        elif self._hand.give_up(lease):
            self.release(lease, outcome)

    def _bury(self, lease: Lease, outcome: Outcome) -> None:
        """Put what wants no other attempt among the dead letters; what cannot be put there is tried again.

        By one try, on the worker's thread: it is seldom, and a delete must come after it.
        """
        delivery = lease.delivery
        try:
            self._queue.bury(delivery, outcome.reason)
        except QueueError as error:
            self._log.error(
                "job.not_given_up", **delivery.ids(), error=str(error), retry_seconds=outcome.release_seconds
            )
            self._hand.give_back(lease)
            self.release(lease, outcome)
            return
        say_given_up(self._log, delivery, outcome.reason)
        self.deletes.add(lease)

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """Let others see a delivery again that was given up."""
        if outcome.name in UNFINISHED:
            self._metrics.event(outcome.name)
        self._visibility.release(lease, outcome.release_seconds or 0)

    def send_anew(self, leases: Sequence[Lease]) -> None:
        """Send a copy of each in its place, before it is deleted; blocks for its requests.

        For last attempts that a stop keeps from their end: handed back, each would be a dead letter. What cannot
        be sent is handed back all the same.
        """
        copies = []
        for lease in leases:
            try:
                copies.append((lease, lease.delivery.body_of_copy()))
            except MalformedMessage:
                self.release(lease, handed_back(1))  # it belongs among the dead letters
        for part in batches([len(body) for _, body in copies]):
            self._send_anew([copies[index] for index in part])

    def _send_anew(self, copies: Sequence[tuple[Lease, str]]) -> None:
        try:
            errors: Mapping[int, object] = self._queue.send_anew(
                [(body, lease.delivery.group) for lease, body in copies]
            )
        except QueueError as error:
            errors = dict.fromkeys(range(len(copies)), error)
        for index, (lease, _) in enumerate(copies):
            if index in errors:
                self._log.error("job.not_sent_anew", **lease.delivery.ids(), error=str(errors[index]))
                self.release(lease, handed_back(1))
            else:
                self._metrics.event("handed_back")
                self._log.info("job.sent_anew", **lease.delivery.ids())
                self.deletes.add(lease)

    def hand_back_unstarted(self) -> None:
        """Hand back what could start elsewhere, at each tick of the keeper: nothing is wrong, so none need wait."""
        for lease in self._hand.give_up_unstarted():
            self.release(lease, handed_back(1))

    def seconds_to_hold(self) -> float:
        """Say for how long nothing should be received: to run more would only be to repeat more."""
        if self._queue.outage.includes("delete") and self._hand.count(State.DONE):
            return STUCK_SECONDS
        return BEHIND_SECONDS if self._hand.count(State.DONE, State.RELEASING) > UNSETTLED_MAX else 0.0

    def drain(self, deadline: float) -> None:
        """Send all there is, then return; at the deadline at the latest."""
        lines = (self._visibility.line, self.deletes)
        for line in lines:
            line.hurry()
        for line in lines:
            line.wait_until_empty(deadline)

    def _delete(self, batch: list[Lease]) -> list[Lease]:
        now = self._hand.now()
        for lease in batch:
            if lease.lost or lease.ends_at() < now:
                self._say_lost(lease)
        try:
            handles = [lease.delivery.receipt_handle for lease in batch]
            refusals = self._queue.delete(handles)
        except QueueError:
            return batch
        # A handle that is gone means that the message is deleted already, by a try whose answer was
        # lost, or that it was handed out again, which `_say_lost` has said.
        # What came again meanwhile is deleted by its newer handle: with the old one SQS may say yes and not do it.
        again = [
            index
            for index, lease in enumerate(batch)
            if (index in refusals and not refusals[index].lease_gone) or lease.delivery.receipt_handle != handles[index]
        ]
        self._hand.confirm(lease for index, lease in enumerate(batch) if index not in again)
        return [batch[index] for index in again]

    def _say_lost(self, lease: Lease) -> None:
        if lease.told:
            return
        lease.told = True
        self._metrics.event("undeleted")
        self._log.error(
            "job.lease_lost",
            **lease.delivery.ids(),
            effect="the job ran to its end, and its lease ended before its message was deleted: it may run again",
        )


def say_given_up(log: FilteringBoundLogger, delivery: Delivery, reason: str) -> None:
    """Log that a job will not be tried again."""
    log.error(
        "job.given_up",
        **delivery.ids(),
        reason=reason,
        effect="it is among the dead letters, or SQS moves it there when it looks at it again",
    )
