"""Renewals and releases: one line for both, since both say until when a message is hidden; thread "visibility"."""

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import QueueError, RequestRefused
from jobrunner.queue.paced import PacedQueue
from jobrunner.queue.requests import Refusal
from jobrunner.telemetry.metrics import Metrics
from jobrunner.worker.batches import Batches
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease, State


@dataclass(frozen=True, slots=True)
class Change:
    """What to ask for a lease: a renewal, or in how many seconds others see its message, tried `until` then."""

    lease: Lease
    release_seconds: int | None = None
    until: float = 0.0


class Visibility:
    """Sends both by the ten, on one thread: so a renewal under way cannot undo the release behind it."""

    def __init__(self, *, queue: PacedQueue, hand: Hand, metrics: Metrics, log: FilteringBoundLogger) -> None:
        self._queue = queue
        self._hand = hand
        self._metrics = metrics
        self._log = log
        self.line: Batches[Change] = Batches(
            send=self._send, pause=lambda: queue.outage.seconds_to_wait("change_visibility"), running=hand.busy
        )

    def renew_due(self) -> None:
        """Put the leases that are due in line: at each tick of the keeper. Never waits."""
        due = self._hand.due()
        for lease in due:
            self.line.add(Change(lease))
        if not due and not len(self.line):
            self._queue.outage.succeeded("change_visibility")  # what failed is done with, one way or the other

    def release(self, lease: Lease, seconds: int) -> None:
        """Put the release of a delivery that was given up in line. Never waits."""
        self.line.add(Change(lease, seconds, lease.ends_at()))

    def _send(self, batch: list[Change]) -> list[Change]:
        now = self._hand.now()
        batch = [change for change in batch if self._is_wanted(change, now)]
        asked = [(change.lease.delivery.receipt_handle, self._seconds(change, now)) for change in batch]
        if not asked:
            return []
        try:
            refusals = self._queue.change_visibility(asked)
        except QueueError as error:
            return self._unanswered(batch, error, now)
        for index, (change, (handle, _)) in enumerate(zip(batch, asked, strict=True)):
            self._answered(change, handle, refusals.get(index), now)
        return []

    def _seconds(self, change: Change, now: float) -> int:
        if change.release_seconds is None:
            return change.lease.renewal_seconds(now)
        # SQS counts 12 hours from the receive, and refuses what goes beyond.
        return max(0, min(change.release_seconds, change.lease.seconds_left(now)))

    def _is_wanted(self, change: Change, now: float) -> bool:
        """Tell whether there is still a reason to send it; what ended meanwhile needs no renewal."""
        if change.lease.state is State.GONE:
            return False
        if change.release_seconds is None:
            return change.lease.state is not State.RELEASING and change.lease.renewal_seconds(now) > 0
        if now < change.until:
            return True
        self._not_released([change], "its lease ran out first")
        return False

    def _answered(self, change: Change, handle: str, refusal: Refusal | None, now: float) -> None:
        lease = change.lease
        if change.release_seconds is not None:
            self._hand.confirm([lease])
            if refusal:
                self._not_released([change], str(refusal))
        elif refusal is None:
            self._hand.renewed(lease, handle, now)
        elif not refusal.lease_gone:
            self._hand.not_renewed(lease)
        else:
            self._lose(lease, handle, str(refusal))

    def _unanswered(self, batch: list[Change], error: QueueError, now: float) -> list[Change]:
        """Give what to try again: releases. A renewal is in line again at the keeper's next tick."""
        for_good = isinstance(error, RequestRefused)  # this server renews and releases nothing
        again, given_up = [], []
        for change in batch:
            lease, seconds = change.lease, change.release_seconds
            if seconds is None and not for_good:
                self._hand.not_renewed(lease)
            elif seconds is None:
                self._lose(lease, lease.delivery.receipt_handle, str(error))
            elif seconds == 0 or for_good:
                given_up.append(change)
            else:
                # For as long as a try that was only not answered would hide the message: later it might
                # hide it from who has it by then.
                again.append(Change(lease, seconds, min(change.until, now + seconds)))
        self._not_released(given_up, str(error))
        return again

    def _not_released(self, changes: list[Change], error: str) -> None:
        if changes:
            self._hand.confirm(change.lease for change in changes)
            ids = [change.lease.delivery.message_id for change in changes]
            effect = "each comes back by itself when its lease runs out"
            self._log.warning("job.not_released", message_count=len(ids), message_ids=ids, error=error, effect=effect)

    def _lose(self, lease: Lease, handle: str, error: str) -> None:
        if not self._hand.lose(lease, handle):
            return
        self._metrics.event("leases_lost")
        self._log.error(
            "lease.lost",
            **lease.delivery.ids(),
            error=error,
            effect="the job goes on here, and the message may start elsewhere meanwhile",
        )
