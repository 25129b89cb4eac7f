"""Keeps what is in hand: renews leases, hands back what cannot start, watches the limits; thread "keeper"."""

import threading
from collections.abc import Callable, Sequence

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import QueueError
from jobrunner.queue.outage import Outage
from jobrunner.queue.requests import Queue, Refusal, tens
from jobrunner.telemetry.metrics import Metrics
from jobrunner.worker.lease import Lease, Leases

TICK_SECONDS = 0.5


class Keeper:
    """Runs its duties one after another, twice a second; the dead-man's switch trusts this rhythm."""

    def __init__(self, *, duties: Sequence[Callable[[], None]]) -> None:
        self._duties = duties
        self._stopped = threading.Event()

    def loop(self) -> None:
        """Do all duties at each tick, until stopped."""
        while not self._stopped.wait(TICK_SECONDS):
            for duty in self._duties:
                duty()

    def stop(self) -> None:
        """End after the duty under way."""
        self._stopped.set()


class Renewal:
    """Renews the leases that are due, by the ten.

    `renewing` is held during each request, so that whoever takes a delivery off renewal can wait for
    one under way. `alive` is called between requests, since several slow ones may outlast a tick.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        leases: Leases,
        renewing: threading.Lock,
        alive: Callable[[], None],
        outage: Outage,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._queue = queue
        self._leases = leases
        self._renewing = renewing
        self._alive = alive
        self._outage = outage
        self._metrics = metrics
        self._log = log

    def renew(self) -> None:
        """Renew what is due: one try each, the next tick makes the next."""
        due = self._leases.due()
        if not due:
            self._outage.succeeded("renew")  # what failed is done with, one way or the other
        elif self._outage.seconds_to_wait("renew") == 0:
            for batch in tens(due):
                self._alive()
                with self._renewing:
                    self._renew(batch)

    def _renew(self, batch: Sequence[Lease]) -> None:
        asked_at = self._leases.now()
        changes = [(lease.delivery.receipt_handle, self._leases.renewal_seconds(lease)) for lease in batch]
        try:
            refusals = self._queue.change_visibility(changes)
        except QueueError as error:
            self._outage.failed("renew", error)
            return
        self._outage.succeeded("renew")
        for index, (lease, (handle, _)) in enumerate(zip(batch, changes, strict=True)):
            refusal = refusals.get(index)
            if refusal is None:
                self._leases.renewed(lease, handle, asked_at)
            elif refusal.lease_gone and self._leases.lose(lease, handle):
                self._say_lost(lease, refusal)

    def _say_lost(self, lease: Lease, refusal: Refusal) -> None:
        self._metrics.event("leases_lost")
        self._log.error(
            "lease.lost",
            message_id=lease.delivery.message_id,
            attempt=lease.delivery.attempt,
            error=str(refusal),
            effect="the job goes on here, and the message may start elsewhere meanwhile",
        )
