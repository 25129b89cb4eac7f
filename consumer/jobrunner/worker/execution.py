"""One delivery from start to outcome: decode, find, bind, call; runs on a worker thread, knows none."""

import inspect
import os
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from structlog.typing import FilteringBoundLogger

from jobrunner import current, outcome
from jobrunner.app.around import Around
from jobrunner.app.catalog import Catalog, Job
from jobrunner.errors import BadParams, MalformedMessage, UnknownMethod
from jobrunner.message import Call, Delivery, decode
from jobrunner.outcome import Outcome
from jobrunner.telemetry.metrics import Metrics

UNKNOWN_LOG_SECONDS = 60.0
UNKNOWN_NAMES_MAX = 1_000


class JobDidNotReturn(RuntimeError):
    """The function ended without running to its end, though no exception reached us."""


class Execution:
    """Turns deliveries into outcomes; whatever a job does, `run` returns."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        around: Around | None,
        result_of: Callable[[Awaitable[Any]], Any],
        attempts_max: int | None,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._catalog = catalog
        self._around = around
        self._result_of = result_of
        self._attempts_max = attempts_max
        self._metrics = metrics
        self._log = log
        self._pid = os.getpid()
        self._unknown_logged_at: dict[str, float] = {}

    def run(self, delivery: Delivery) -> Outcome:
        """Run what the delivery asks for, log its one line, and say how it ended."""
        try:
            call = decode(delivery.body)
        except MalformedMessage as error:
            self._metrics.event("malformed")
            return self._refused("malformed", delivery, error)
        token = current.running.set(current.CurrentJob.of(call, delivery))
        try:
            return self._run_call(call, delivery)
        finally:
            current.running.reset(token)

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
        error = self._call(job, arguments)
        duration_ms = round((time.monotonic() - started) * 1000, 1)
        self._metrics.job("failed" if error else "done", method=job.method, times_ms=(duration_ms, queue_ms))
        if error is None:
            self._log.info("job.done", duration_ms=duration_ms, queue_ms=queue_ms)
            return outcome.DONE
        failed = outcome.failed("failed", delivery.attempt)
        self._log.error(
            "job.failed",
            duration_ms=duration_ms,
            queue_ms=queue_ms,
            attempts_max=self._attempts_max,
            retry_seconds=failed.release_seconds,
            exc_info=error,
        )
        return failed

    def _call(self, job: Job, arguments: inspect.BoundArguments) -> BaseException | None:
        """Call the function; None only if it ran to its end, whatever `--around` makes of errors."""
        returned = False
        try:
            if self._around is None:
                self._finish(job.function(*arguments.args, **arguments.kwargs))
                returned = True
            else:
                with self._around():
                    self._finish(job.function(*arguments.args, **arguments.kwargs))
                    returned = True
        except BaseException as error:
            self._end_forked_child()
            return error
        self._end_forked_child()
        return None if returned else JobDidNotReturn("--around swallowed the job's exception")

    def _finish(self, result: object) -> None:
        if result is None:
            return
        if inspect.isawaitable(result):
            result = self._result_of(result)
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise JobDidNotReturn("the job returned a generator: nothing of its body ran; return a list instead")

    def _end_forked_child(self) -> None:
        # A job that forked comes back here twice. Only the parent may answer for the message.
        if os.getpid() != self._pid:
            os._exit(0)

    def _refused(self, name: str, delivery: Delivery, error: Exception, **more: object) -> Outcome:
        refused = outcome.failed(name, delivery.attempt)
        self._log.error(
            f"job.{name}",
            message_id=delivery.message_id,
            attempt=delivery.attempt,
            retry_seconds=refused.release_seconds,
            error=str(error),
            **more,
        )
        return refused

    def _unknown(self, method: str, delivery: Delivery, error: Exception) -> Outcome:
        refused = outcome.unknown_method(delivery.attempt)
        if self._is_news(method):
            self._log.error(
                "job.unknown_method",
                method=method,
                message_id=delivery.message_id,
                attempt=delivery.attempt,
                retry_seconds=refused.release_seconds,
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


def _is_too_old(call: Call, delivery: Delivery) -> bool:
    if call.max_age_seconds is None:
        return False
    due = datetime.fromisoformat(call.scheduled_at).timestamp() if call.scheduled_at else delivery.sent_at
    return time.time() - due > call.max_age_seconds
