"""One delivery from start to outcome: decode, find, bind, call; on a worker thread or the loop, knows neither."""

import contextvars
import inspect
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from structlog.typing import FilteringBoundLogger

from jobrunner import current, outcome
from jobrunner.app.calling import Caller
from jobrunner.app.catalog import Catalog, Job
from jobrunner.app.raised import NOT_SAID, described, forget, retry_wanted
from jobrunner.errors import AroundBroken, BadParams, MalformedMessage, UnknownMethod
from jobrunner.message import Call, Delivery, decode
from jobrunner.outcome import Outcome
from jobrunner.telemetry.metrics import Metrics
from jobrunner.telemetry.spans import Spans
from jobrunner.worker.settler import say_given_up

UNKNOWN_LOG_SECONDS = 60.0
UNKNOWN_NAMES_MAX = 1_000


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A delivery, what it asks for or why it cannot be run, and the context that it runs in."""

    delivery: Delivery
    context: contextvars.Context
    call: Call | None = None
    job: Job | None = None
    arguments: inspect.BoundArguments | None = None
    error: Exception | None = None
    queue_ms: int = 0
    started_at: float = 0.0
    span: Any = None

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop."""
        return self.error is None and self.job is not None and self.job.is_async

    @property
    def method(self) -> str:
        """The method's name, where there is one."""
        return self.call.method if self.call else ""

    def whole(self) -> tuple[Job, inspect.BoundArguments]:
        """Give what is called and with what: there is both where nothing is wrong."""
        assert self.job is not None and self.arguments is not None  # noqa: S101, PT018 - or there is an error
        return self.job, self.arguments


class Execution:
    """Turns deliveries into outcomes; whatever a job does, `run` returns.

    Each job runs in a context of its own: what it puts into context variables is not the next one's.
    `says_all`: somebody watches, so that an unknown method is said each time, and not once a minute.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        caller: Caller,
        attempts_max: int | None,
        is_stopping: Callable[[], bool],
        says_all: bool = False,
        spans: Spans | None = None,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._catalog = catalog
        self._caller = caller
        self._attempts_max = attempts_max
        self._is_stopping = is_stopping
        self._says_all = says_all
        self._spans = spans
        self._metrics = metrics
        self._log = log
        self._unknown_logged_at: dict[str, float] = {}

    def prepare(self, delivery: Delivery) -> Prepared:
        """Decode, find and bind; nothing has run or been said yet."""
        prepared = Prepared(delivery=delivery, context=contextvars.copy_context())
        try:
            prepared.call = call = decode(delivery.body)
            job = current.CurrentJob.of(call, delivery, attempts_max=self._attempts_max, is_stopping=self._is_stopping)
            prepared.context.run(current.running.set, job)
            prepared.job = self._catalog.find(call.method)
            prepared.arguments = prepared.job.bind(call.params)
        except (MalformedMessage, BadParams, UnknownMethod) as error:
            prepared.error = error
        return prepared

    def run(self, prepared: Prepared) -> Outcome:
        """Run it on this thread, log its one line, and say how it ended."""
        return prepared.context.run(self._run, prepared)

    async def run_on_loop(self, prepared: Prepared, *, is_overdue: Callable[[], bool]) -> Outcome:
        """Do the same for an `async def` job, in a task whose context is the job's.

        `is_overdue`: it was cancelled for its limit, and whoever did that has said so.
        """
        ended = self._refuse(prepared)
        if ended is None:
            error = await self._caller.call_on_loop(*prepared.whole())
            ended = self._ended(prepared, error, is_overdue=is_overdue())
        return self._say_given_up(prepared.delivery, ended)

    def _run(self, prepared: Prepared) -> Outcome:
        ended = self._refuse(prepared) or self._ended(prepared, self._caller.call(*prepared.whole()))
        return self._say_given_up(prepared.delivery, ended)

    def _say_given_up(self, delivery: Delivery, ended: Outcome) -> Outcome:
        if ended.given_up:
            say_given_up(self._log, delivery, ended.name)
        return ended

    def _refuse(self, prepared: Prepared) -> Outcome | None:
        """Say what keeps it from running; None if nothing does."""
        delivery, call, error = prepared.delivery, prepared.call, prepared.error
        if call is None:
            self._metrics.event("malformed")
            return self._refused(prepared, outcome.failed("malformed", delivery.attempt, self._attempts_max))
        if isinstance(error, BadParams):
            self._metrics.job("bad_params", method=call.method)
            return self._refused(prepared, outcome.failed("bad_params", delivery.attempt, self._attempts_max))
        if error is not None:
            self._metrics.event("unknown_method")  # without its name: anybody may make up any number of them
            unknown = outcome.unknown_method(delivery.attempt, self._attempts_max)
            is_said = self._says_all or self._is_news(call.method)
            return self._refused(prepared, unknown) if is_said else unknown
        prepared.queue_ms = max(0, round((time.time() - delivery.sent_at) * 1000))
        if _is_too_old(call, delivery):
            self._log.warning("job.expired", queue_ms=prepared.queue_ms, max_age_seconds=call.max_age_seconds)
            self._metrics.job("expired", method=call.method)
            return outcome.EXPIRED
        prepared.started_at = time.monotonic()
        if self._spans:
            prepared.span = self._spans.begin(call, delivery, job_id=call.id or delivery.message_id)
        return None

    def _ended(self, prepared: Prepared, error: BaseException | None, *, is_overdue: bool = False) -> Outcome:
        duration_ms = round((time.monotonic() - prepared.started_at) * 1000, 1)
        times_ms = (duration_ms, prepared.queue_ms)
        traceback = described(error) if error else ""
        if self._spans:
            self._spans.end(prepared.span, error, traceback)
        self._metrics.job("done" if error is None else "failed", method=prepared.method, times_ms=times_ms)
        if error is None:
            self._log.info("job.done", duration_ms=duration_ms, queue_ms=prepared.queue_ms)
            return outcome.DONE
        if type(error) is AroundBroken:
            return self._around_broken(error, prepared.delivery)
        if is_overdue:
            failed = outcome.failed("timed_out", prepared.delivery.attempt, self._attempts_max)
        else:
            failed = self._say_failed(prepared, error, duration_ms=duration_ms, exception=traceback)
        with suppress(BaseException):  # it may do anything when it is asked
            forget(error)
        return failed

    def _say_failed(self, prepared: Prepared, error: BaseException, *, duration_ms: float, exception: str) -> Outcome:
        """Log a failure; what becomes of it its attribute `retry_seconds` says, if that means something."""
        wanted, more = retry_wanted(error), {}
        how = ("failed", prepared.delivery.attempt, self._attempts_max)
        if wanted is None or type(wanted) is int or (type(wanted) is float and not math.isnan(wanted)):
            failed = outcome.steered(*how, wanted)
        else:
            failed = outcome.failed(*how)
            if wanted is not NOT_SAID:
                more["retry_seconds_ignored"] = f"a {type(wanted).__name__}, not a number of seconds or None"
        self._log.error(
            "job.failed",
            duration_ms=duration_ms,
            queue_ms=prepared.queue_ms,
            attempts_max=self._attempts_max,
            retry_seconds=failed.retry_seconds,
            exception=exception,
            **more,
        )
        return failed

    def _around_broken(self, error: Exception, delivery: Delivery) -> Outcome:
        """Keep what no job of this app can run now for its next start: said once a minute, tried again late."""
        if self._is_news("--around"):
            self._log.error("around.broken", error=str(error))
        return replace(outcome.unknown_method(delivery.attempt, self._attempts_max), name="around_broken")

    def _refused(self, prepared: Prepared, refused: Outcome) -> Outcome:
        ids = prepared.delivery.ids()
        self._log.error(f"job.{refused.name}", **ids, retry_seconds=refused.retry_seconds, error=str(prepared.error))
        return refused

    def _is_news(self, method: str) -> bool:
        """Tell whether this unknown name was not logged within the last minute."""
        now = time.monotonic()
        if now - self._unknown_logged_at.get(method, -UNKNOWN_LOG_SECONDS) < UNKNOWN_LOG_SECONDS:
            return False
        if len(self._unknown_logged_at) >= UNKNOWN_NAMES_MAX:
            self._unknown_logged_at.clear()
        self._unknown_logged_at[method] = now
        return True


def _is_too_old(call: Call, delivery: Delivery) -> bool:
    if call.max_age_seconds is None:
        return False
    due = datetime.fromisoformat(call.scheduled_at).timestamp() if call.scheduled_at else delivery.sent_at
    return time.time() - due > call.max_age_seconds
