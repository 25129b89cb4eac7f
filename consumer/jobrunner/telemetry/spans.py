"""OpenTelemetry's spans, where the app uses it: one of a send, one of each run; on the threads of both.

Nothing of it is imported before the app has: it costs nothing without. A courtesy: what raises is said once.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from jobrunner.message import Call, Delivery
from jobrunner.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from structlog.typing import FilteringBoundLogger

#: The names of OpenTelemetry's "Semantic conventions for AWS SQS", in development in November 2026, and ours.
SYSTEM = {"messaging.system": "aws_sqs"}
SEND = {**SYSTEM, "messaging.operation.name": "send", "messaging.operation.type": "send"}
PROCESS = {**SYSTEM, "messaging.operation.name": "process", "messaging.operation.type": "process"}
DESTINATION, QUEUE_URL = "messaging.destination.name", "aws.sqs.queue.url"
MESSAGE_ID, MESSAGE_COUNT = "messaging.message.id", "messaging.batch.message_count"
METHOD, JOB_ID, ATTEMPT = "jobrunner.method", "jobrunner.job_id", "jobrunner.attempt"
ERROR_TYPE, EXCEPTION, STACKTRACE = "error.type", "exception", "exception.stacktrace"


def is_used() -> bool:
    """Tell whether the app has imported OpenTelemetry: asked at each send, and by a worker once the app is loaded."""
    return "opentelemetry.trace" in sys.modules


class Spans:
    """Makes the spans of one queue; `say` is told once of what raises."""

    def __init__(self, *, queue_url: str, relation: Literal["link", "parent"], say: Callable[[str], object]) -> None:
        from opentelemetry import context, propagate, trace

        self._context, self._propagate, self._trace = context, propagate, trace
        self._tracer = trace.get_tracer("jobrunner")
        self._destination = queue_url.rpartition("/")[2]
        self._queue = {DESTINATION: self._destination, QUEUE_URL: queue_url}
        self._relation = relation
        self._say = say
        self._said = False

    @classmethod
    def of(cls, settings: Settings, log: "FilteringBoundLogger") -> Self | None:
        """Make a worker's, once its app is loaded; None where that does not use OpenTelemetry."""

        def say(error: str) -> None:
            log.warning("courtesy.failed", error=error, effect="spans are missing")

        return cls.made(settings.queue_url, settings.trace, say) if is_used() else None

    @classmethod
    def made(cls, queue_url: str, relation: Literal["link", "parent"], say: Callable[[str], object]) -> Self | None:
        """Make them, or say why that cannot be: its variables may name what is not installed."""
        try:
            return cls(queue_url=queue_url, relation=relation, say=say)
        except Exception as error:
            say(_described(error))
            return None

    @contextmanager
    def sending(self, calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
        """Be within the span of a send; gives the calls with its context in theirs, for whoever runs them."""
        span, token = None, None
        carried: dict[str, str] = {}
        about = {METHOD: calls[0].method, JOB_ID: str(calls[0].id)} if len(calls) == 1 else {MESSAGE_COUNT: len(calls)}
        with self._courtesy():
            span = self._tracer.start_span(
                f"send {self._destination}",
                kind=self._trace.SpanKind.PRODUCER,
                attributes={**SEND, **self._queue, **about},
            )
            token = self._context.attach(self._trace.set_span_in_context(span))
            self._propagate.inject(carried)
        carried = {key: value for key, value in carried.items() if isinstance(key, str) and isinstance(value, str)}
        try:
            yield [replace(call, context={**call.context, **carried}) for call in calls] if carried else calls
        except BaseException as error:
            self.end(span, error)
            raise
        else:
            self.end(span)
        finally:
            if token:
                self._context.detach(token)

    def begin(self, call: Call, delivery: Delivery, *, job_id: str) -> "Span | None":
        """Begin the span of a run, in the job's own context, which is thrown away with it."""
        span = None
        with self._courtesy():
            sent = self._propagate.extract(call.context, self._context.Context())
            sender = self._trace.get_current_span(sent).get_span_context()
            is_linked = self._relation == "link" and sender.is_valid
            span = self._tracer.start_span(
                f"process {self._destination}",
                context=self._context.Context() if is_linked else sent,
                kind=self._trace.SpanKind.CONSUMER,
                links=[self._trace.Link(sender)] if is_linked else None,
                attributes={
                    **PROCESS,
                    **self._queue,
                    MESSAGE_ID: delivery.message_id,
                    METHOD: call.method,
                    JOB_ID: job_id,
                    ATTEMPT: delivery.attempt,
                },
            )
            self._context.attach(self._trace.set_span_in_context(span, sent))
        return span

    def end(self, span: "Span | None", error: BaseException | None = None, stack: str = "") -> None:
        """End a span, and say how that went; `stack` is the traceback as text, where there is one."""
        if span is None:
            return
        with self._courtesy():
            if error is not None:
                kind = _name_of(type(error))
                span.set_attribute(ERROR_TYPE, kind)
                span.set_status(self._trace.StatusCode.ERROR, kind)
                span.add_event(EXCEPTION, {f"{EXCEPTION}.type": kind} | ({STACKTRACE: stack} if stack else {}))
            span.end()

    def flush(self) -> threading.Thread | None:
        """Have what is batched sent now; the thread ends when it is, or never: wait for it as long as you can."""

        def send() -> None:
            with self._courtesy():
                getattr(self._trace.get_tracer_provider(), "force_flush", int)()

        with self._courtesy():
            thread = threading.Thread(target=send, name="spans", daemon=True)
            thread.start()
            return thread
        return None

    @contextmanager
    def _courtesy(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._said:
                self._said = True
                self._say(_described(error))


def _described(error: Exception) -> str:
    try:
        return f"OpenTelemetry: {type(error).__name__}: {error}"
    except Exception:
        return f"OpenTelemetry: {type(error).__name__}, which cannot be shown"


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
