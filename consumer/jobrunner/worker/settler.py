"""Deletes and releases: the only place where a message leaves the queue; threads "deleter-N" and "releaser"."""

from collections.abc import Callable
from threading import Lock

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import QueueError
from jobrunner.outcome import Outcome
from jobrunner.queue.outage import Outage
from jobrunner.queue.requests import Queue
from jobrunner.telemetry.metrics import Metrics
from jobrunner.worker.batches import Batches
from jobrunner.worker.lease import Lease, Leases, State

#: Outcomes of deliveries whose jobs did not end here: nobody else counts them.
UNFINISHED = ("handed_back", "timed_out", "died")


class Settler:
    """Turns outcomes into requests.

    A finished delivery stays leased until its delete is confirmed. A released one leaves renewal first,
    and its request waits for a renewal under way, which would otherwise undo the backoff.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        leases: Leases,
        renewing: Lock,
        running: Callable[[], int],
        outage: Outage,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._queue = queue
        self._leases = leases
        self._renewing = renewing
        self._outage = outage
        self._metrics = metrics
        self._log = log
        self.deletes = Batches(send=self._delete, pause=lambda: outage.seconds_to_wait("delete"), running=running)
        self.releases = Batches(send=self._release, pause=lambda: 0.0, running=running)

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        """Carry out an outcome: called by the worker that ran the job, or by who hands it back."""
        if outcome.release_seconds is None:
            if self._leases.finish(lease):
                self.deletes.add(lease)
        elif self._leases.give_up(lease, State.WAITING, State.RUNNING):
            if outcome.name in UNFINISHED:
                self._metrics.event(outcome.name)
            self.releases.add((lease, outcome.release_seconds))

    def is_stuck(self) -> bool:
        """Tell whether finished jobs cannot be deleted: to run more would only be to repeat more."""
        return self._outage.includes("delete") and len(self.deletes) > 0

    def drain(self, deadline: float) -> None:
        """Send all there is, then return; at the deadline at the latest."""
        for line in (self.releases, self.deletes):
            line.hurry()
        for line in (self.releases, self.deletes):
            line.wait_until_empty(deadline)

    def _delete(self, batch: list[Lease]) -> list[Lease]:
        held = [lease for lease in batch if not self._is_lost(lease)]
        if not held:
            self._outage.given_up("delete")
            return []
        try:
            refusals = self._queue.delete([lease.delivery.receipt_handle for lease in held])
        except QueueError as error:
            self._outage.failed("delete", error)
            return held
        # While the lease is ours nobody else can take the message: a handle that is gone then means
        # that it is deleted already, by a try whose answer was lost.
        again = [index for index, refusal in refusals.items() if not refusal.lease_gone]
        self._leases.confirm(lease for index, lease in enumerate(held) if index not in again)
        if again:
            self._outage.failed("delete", QueueError(str(refusals[again[0]])))
        else:
            self._outage.succeeded("delete")
        return [held[index] for index in again]

    def _is_lost(self, lease: Lease) -> bool:
        if not lease.lost and self._leases.seconds_left(lease) > 0:
            return False
        self._leases.confirm([lease])
        self._metrics.event("undeleted")
        self._log.error(
            "job.lease_lost",
            message_id=lease.delivery.message_id,
            attempt=lease.delivery.attempt,
            effect="the job ran to its end and its message could not be deleted in time: it will run again",
        )
        return True

    def _release(self, batch: list[tuple[Lease, int]]) -> list[tuple[Lease, int]]:
        with self._renewing:
            pass
        try:
            refusals = self._queue.change_visibility([(lease.delivery.receipt_handle, wait) for lease, wait in batch])
        except QueueError as error:
            # Not tried again: the message comes back by itself when its lease runs out.
            self._log.warning("job.not_released", count=len(batch), error=str(error))
            return []
        for index, refusal in refusals.items():
            message_id = batch[index][0].delivery.message_id
            self._log.warning("job.not_released", message_id=message_id, error=str(refusal))
        return []
