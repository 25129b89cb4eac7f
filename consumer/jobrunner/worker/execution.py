"""One delivery from start to outcome: decode, find, bind, call; runs on a worker thread, knows none."""

import contextvars
import inspect
import math
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from structlog.typing import FilteringBoundLogger

from jobrunner import current, outcome
from jobrunner.app.calling import Caller
from jobrunner.app.catalog import Catalog, Job
from jobrunner.errors import AroundBroken, BadParams, MalformedMessage, UnknownMethod
from jobrunner.message import Call, Delivery, decode
from jobrunner.outcome import Outcome
from jobrunner.telemetry.metrics import Metrics
from jobrunner.worker.settler import say_given_up

UNKNOWN_LOG_SECONDS = 60.0
UNKNOWN_NAMES_MAX = 1_000
NOT_SAID = object()


class Execution:
    """Turns deliveries into outcomes; whatever a job does, `run` returns.

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
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._catalog = catalog
        self._caller = caller
        self._attempts_max = attempts_max
        self._is_stopping = is_stopping
        self._says_all = says_all
        self._metrics = metrics
        self._log = log
        self._unknown_logged_at: dict[str, float] = {}

    def run(self, delivery: Delivery) -> Outcome:
        """Run what the delivery asks for, log its one line, and say how it ended.

        In a context of its own: what a job puts into context variables is not the next one's.
        """
        return contextvars.copy_context().run(self._run, delivery)

    def _run(self, delivery: Delivery) -> Outcome:
        ended = self._run_body(delivery)
        if ended.given_up:
            say_given_up(self._log, delivery, ended.name)
        return ended

    def _run_body(self, delivery: Delivery) -> Outcome:
        try:
            call = decode(delivery.body)
        except MalformedMessage as error:
            self._metrics.event("malformed")
            return self._refused("malformed", delivery, error)
        job = current.CurrentJob.of(call, delivery, attempts_max=self._attempts_max, is_stopping=self._is_stopping)
        current.running.set(job)
        return self._run_call(call, delivery)

    def _run_call(self, call: Call, delivery: Delivery) -> Outcome:
        try:
            job = self._catalog.find(call.method)
            arguments = job.bind(call.params)
        except BadParams as error:
            self._metrics.job("bad_params", method=call.method)
            return self._refused("bad_params", delivery, error, method=call.method)
        except UnknownMethod as error:
            self._metrics.event("unknown_method")  # without its name: anybody may make up any number of them
            return self._unknown(call.method, delivery, error)
        return self._run_job(job, arguments, call, delivery)

    def _run_job(self, job: Job, arguments: inspect.BoundArguments, call: Call, delivery: Delivery) -> Outcome:
        queue_ms = max(0, round((time.time() - delivery.sent_at) * 1000))
        if _is_too_old(call, delivery):
            self._log.warning("job.expired", queue_ms=queue_ms, max_age_seconds=call.max_age_seconds)
            self._metrics.job("expired", method=job.method)
            return outcome.EXPIRED
        started = time.monotonic()
        error = self._caller.call(job, arguments)
        duration_ms = round((time.monotonic() - started) * 1000, 1)
        self._metrics.job("done" if error is None else "failed", method=job.method, times_ms=(duration_ms, queue_ms))
        if error is None:
            self._log.info("job.done", duration_ms=duration_ms, queue_ms=queue_ms)
            return outcome.DONE
        if type(error) is AroundBroken:
            return self._around_broken(error, delivery)
        failed, more = self._failed(error, delivery)
        self._log.error(
            "job.failed",
            duration_ms=duration_ms,
            queue_ms=queue_ms,
            attempts_max=self._attempts_max,
            retry_seconds=failed.retry_seconds,
            exception=described(error),
            **more,
        )
        with suppress(BaseException):  # it may do anything when it is asked
            forget(error)
        return failed

    def _failed(self, error: BaseException, delivery: Delivery) -> tuple[Outcome, dict[str, object]]:
        """Say what becomes of a failure: as its attribute `retry_seconds` asks, if it has one that means something."""
        attempt, most = delivery.attempt, self._attempts_max
        wanted = retry_wanted(error)
        if wanted is None or (type(wanted) in (int, float) and not math.isnan(wanted)):
            return outcome.steered("failed", attempt, most, wanted), {}
        more: dict[str, object] = {}
        if wanted is not NOT_SAID:
            more["retry_seconds_ignored"] = f"a {type(wanted).__name__}, not a number of seconds or None"
        return outcome.failed("failed", attempt, most), more

    def _around_broken(self, error: Exception, delivery: Delivery) -> Outcome:
        """Keep what no job of this app can run now for its next start: said once a minute, tried again late."""
        if self._says_all or self._is_news("--around"):
            self._log.error("around.broken", error=str(error))
        return replace(outcome.unknown_method(delivery.attempt, self._attempts_max), name="around_broken")

    def _refused(self, name: str, delivery: Delivery, error: Exception, **more: object) -> Outcome:
        refused = outcome.failed(name, delivery.attempt, self._attempts_max)
        self._log.error(
            f"job.{name}",
            message_id=delivery.message_id,
            attempt=delivery.attempt,
            retry_seconds=refused.retry_seconds,
            error=str(error),
            **more,
        )
        return refused

    def _unknown(self, method: str, delivery: Delivery, error: Exception) -> Outcome:
        refused = outcome.unknown_method(delivery.attempt, self._attempts_max)
        if self._says_all or self._is_news(method):
            self._log.error(
                "job.unknown_method",
                method=method,
                message_id=delivery.message_id,
                attempt=delivery.attempt,
                retry_seconds=refused.retry_seconds,
                error=str(error),
            )
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


def retry_wanted(error: BaseException) -> Any:
    """Ask an exception when its job should be tried again; whatever it does when it is asked."""
    try:
        return getattr(error, "retry_seconds", NOT_SAID)
    except BaseException:
        return NOT_SAID


def _is_too_old(call: Call, delivery: Delivery) -> bool:
    if call.max_age_seconds is None:
        return False
    due = datetime.fromisoformat(call.scheduled_at).timestamp() if call.scheduled_at else delivery.sent_at
    return time.time() - due > call.max_age_seconds


def described(error: BaseException) -> str:
    """Give an exception as text, also one that cannot say what it is."""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except BaseException:
        place = ""
        with suppress(BaseException):
            place = "".join(traceback.format_tb(error.__traceback__))
        return f"{place}{type(error).__name__}, which raises when it is asked what it says"


def forget(error: BaseException | None) -> None:
    """Let go of an exception's traceback, and with it of the frames and all that the job's functions held.

    Exception, traceback and frames hang together in a circle, which only the collector's oldest and
    rarest run would find.
    """
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        left += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
