"""One delivery on its last attempt, in the process that `alone.py` starts for it; main thread, and "watch".

The composition of a worker, as small as one delivery needs: execution, one lease, one limit. Nothing but
that limit, the job itself or the container's end stops it: it heeds no SIGTERM, and lives on when its
parent ends. The parent renews the lease while it lives; then this process does, and settles too.
"""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self

from structlog.typing import FilteringBoundLogger

from jobrunner.app.around import Around
from jobrunner.app.calling import Caller
from jobrunner.app.catalog import Catalog
from jobrunner.app.coroutines import Coroutines
from jobrunner.app.loading import load_app, load_around
from jobrunner.errors import JobrunnerError, QueueError
from jobrunner.message import Delivery
from jobrunner.outcome import Outcome, failed
from jobrunner.queue import requests
from jobrunner.settings import Settings
from jobrunner.telemetry import logs
from jobrunner.telemetry.metrics import Metrics
from jobrunner.telemetry.spans import Spans
from jobrunner.worker import signals
from jobrunner.worker.execution import Execution
from jobrunner.worker.lease import Lease
from jobrunner.worker.settler import say_given_up

TICK_SECONDS = 0.5
#: How long the spans of this one run may take to be sent.
FLUSH_SECONDS = 1.0
#: How the process ends when it has deleted its message, for a parent that no report reaches.
DELETED = 64
#: Between two tries to delete.
PAUSE_SECONDS = 1.0
SPARE_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that a last attempt needs to know; the parent has a blank one, and fills it in for each."""

    settings: Settings
    attempts_max: int | None
    visibility_seconds: int
    delivery: Delivery | None = None
    held_since: float = 0.0
    parent: int = 0
    report_to: int = -1

    def of(self, lease: Lease, *, report_to: int) -> Self:
        """Fill it in: monotonic times are the same in all processes of a machine."""
        held_since, parent = lease.held_since, os.getpid()
        return replace(self, delivery=lease.delivery, held_since=held_since, parent=parent, report_to=report_to)

    def pack(self) -> bytes:
        """Write it for the child."""
        return json.dumps(asdict(self), default=str).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read it in the child."""
        given: Mapping[str, Any] = json.loads(data)
        settings = Settings(**{**given["settings"], "app_dir": Path(given["settings"]["app_dir"])})
        return cls(**{**given, "settings": settings, "delivery": Delivery(**given["delivery"])})


def main() -> NoReturn:
    """Run the one delivery that a worker, our parent, puts into stdin."""
    order = Order.unpack(sys.stdin.buffer.read())
    settings = order.settings
    _set_apart(order)
    log = logs.configure(log_format=settings.log_format, level=settings.log_level)
    queue, jobs, around = _loaded(order, log)
    coroutines = Coroutines()
    threading.Thread(target=coroutines.loop, name="coroutines", daemon=True).start()
    spans = Spans.of(settings, log)
    metrics = Metrics.of(settings, methods=jobs.jobs, in_flight=lambda: 1)
    execution = Execution(
        catalog=jobs,
        caller=Caller(around=around, coroutines=coroutines),
        attempts_max=order.attempts_max,
        # Only the container's end ends this process, and its parent is told of that first.
        is_stopping=lambda: os.getppid() != order.parent,
        spans=spans,
        metrics=metrics,
        log=log,
    )
    LastAttempt(
        order=order, queue=queue, execution=execution, coroutines=coroutines, metrics=metrics, spans=spans, log=log
    ).run()


def _set_apart(order: Order) -> None:
    """Heed no signal, go first where memory is short, and keep the pipe to the parent from what the job starts."""
    signals.heed_none()
    with contextlib.suppress(OSError):  # before the web server
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.set_inheritable(order.report_to, False)  # noqa: FBT003 - os takes no keyword
    signals.stay_ours(order.report_to)


def _loaded(order: Order, log: FilteringBoundLogger) -> tuple[requests.Queue, Catalog, Around | None]:
    settings = order.settings
    try:
        # The queue first: what botocore imports late must be there before the app's files come first.
        queue = requests.working_queue(settings.queue_url, visibility_seconds=order.visibility_seconds)
        jobs = load_app(app_dir=settings.app_dir, module=settings.module, django=settings.django)
        return queue, jobs, load_around(settings.around, django=settings.django)
    except JobrunnerError as error:
        log.critical("worker.refused", error=str(error), code=int(error.exit_code))
        sys.exit(error.exit_code)


class LastAttempt:
    """Runs it, watches over it, and says how it ended: to the parent, or to the queue."""

    def __init__(
        self,
        *,
        order: Order,
        queue: requests.Queue,
        execution: Execution,
        coroutines: Coroutines,
        metrics: Metrics,
        spans: Spans | None,
        log: FilteringBoundLogger,
    ) -> None:
        assert order.delivery is not None  # noqa: S101 - only the parent's blank has none
        self._order = order
        self._delivery = order.delivery
        self._queue = queue
        self._execution = execution
        self._coroutines = coroutines
        self._metrics = metrics
        self._spans = spans
        self._log = log
        self._lease = Lease(self._delivery, order.held_since, order.held_since, order.visibility_seconds)
        self._thread_id = threading.get_ident()
        self._ending = threading.Lock()
        self._pipe = os.fstat(order.report_to)

    def run(self) -> NoReturn:
        """Run the delivery and end the process."""
        if self._is_orphan() and time.monotonic() > self._lease.ends_at():
            sys.exit("the lease has ended, and with it the attempt")
        self._lease.started_at = time.monotonic()
        self._report(started=True)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        if limit := self._order.settings.job_timeout_seconds:  # for one that holds the interpreter, where no parent is
            faulthandler.dump_traceback_later(limit + SPARE_SECONDS, exit=True)
        self._end(self._execution.run(self._execution.prepare(self._delivery)))

    def _watch(self) -> None:
        """Look at the limit, and at the lease once no parent does."""
        limit = self._order.settings.job_timeout_seconds
        while True:
            time.sleep(TICK_SECONDS)
            now = time.monotonic()
            if limit and now > self._lease.started_at + limit and not self._ending.locked():
                stack = self._coroutines.stack_of(self._thread_id)
                self._log.error("job.timed_out", **self._delivery.ids(), limit_seconds=limit, stack=stack)
                outcome = failed("timed_out", self._delivery.attempt, self._order.attempts_max)
                say_given_up(self._log, self._delivery, outcome.name)
                self._end(outcome)
            if self._is_orphan() and self._lease.is_due(now):
                self._renew(now)

    def _renew(self, now: float) -> None:
        with contextlib.suppress(QueueError):
            change = (self._delivery.receipt_handle, self._lease.renewal_seconds(now))
            refusals = self._queue.change_visibility([change])
            if not refusals:
                self._lease.held_since = now
            elif refusals[0].lease_gone:
                self._lease.lost = True

    def _end(self, outcome: Outcome) -> NoReturn:
        """Settle, report, end the process: on the thread that comes here first."""
        self._ending.acquire()
        faulthandler.cancel_dump_traceback_later()
        deleted = outcome.deletes and self._is_deleted_in_time()
        self._metrics.flush()
        if self._spans and (sending := self._spans.flush()):
            sending.join(FLUSH_SECONDS)
        told = self._report(ended=outcome.name, release_seconds=outcome.release_seconds)
        if not (told or deleted):
            self._settle_alone(outcome)
        signals.end(DELETED if deleted else 0)

    def _is_deleted_in_time(self) -> bool:
        """Delete it for as long as a lease holds, before anybody is told: the parent may be about to stop."""
        ends = time.monotonic() + self._lease.visibility_seconds
        while not self._is_deleted():
            if time.monotonic() > max(ends, self._lease.ends_at()):  # our own watch renews it once no parent does
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    def _settle_alone(self, outcome: Outcome) -> None:
        """Settle where no parent does; a release is tried once, since the lease's end does the same."""
        if outcome.deletes:
            effect = "the job ran to its end, and its message could not be deleted in time: it is a dead letter"
            self._log.error("job.lease_lost", **self._delivery.ids(), effect=effect)
            return
        with contextlib.suppress(QueueError):
            self._queue.change_visibility([(self._delivery.receipt_handle, outcome.release_seconds or 0)])

    def _is_deleted(self) -> bool:
        try:
            return not self._queue.delete([self._delivery.receipt_handle])
        except QueueError:
            return False

    def _is_orphan(self) -> bool:
        return os.getppid() != self._order.parent

    def _report(self, **what: object) -> bool:
        """Tell the parent; False without one, or if the job closed the pipe: its number may be the app's by now."""
        try:
            if not os.path.samestat(os.fstat(self._order.report_to), self._pipe):
                return False
            os.write(self._order.report_to, json.dumps(what).encode() + b"\n")
        except OSError:
            return False
        return not self._is_orphan()
