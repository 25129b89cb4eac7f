"""OpenTelemetry's spans, where the app uses it: one of a send, one of each run; on the threads of both.

Nothing of it is imported before the app has: it costs nothing without. A courtesy: what raises is said once.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from structlog.typing import FilteringBoundLogger

from jobrunner.message import Call, Delivery
from jobrunner.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span

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

    def __init__(
        self, *, queue_url: str, relation: Literal["link", "parent"] = "link", say: Callable[[str], object]
    ) -> None:
        from opentelemetry import trace

        self._tracer = trace.get_tracer("jobrunner")
        self._destination = queue_url.rpartition("/")[2]
        self._queue = {DESTINATION: self._destination, QUEUE_URL: queue_url}
        self._relation = relation
        self._say = say
        self._said = False

    @classmethod
    def of(cls, settings: Settings, log: FilteringBoundLogger) -> Self | None:
        """Make a worker's, once its app is loaded; None where that does not use OpenTelemetry."""

        def say(error: str) -> None:
            log.warning("courtesy.failed", error=error, effect="spans are missing")

        return cls(queue_url=settings.queue_url, relation=settings.trace, say=say) if is_used() else None

    @contextmanager
    def sending(self, calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
        """Be within the span of a send; gives the calls with its context in theirs, for whoever runs them."""
        from opentelemetry import context, propagate, trace

        span, token = None, None
        carried: dict[str, str] = {}
        about = {METHOD: calls[0].method, JOB_ID: str(calls[0].id)} if len(calls) == 1 else {MESSAGE_COUNT: len(calls)}
        with self._courtesy():
            span = self._tracer.start_span(
                f"send {self._destination}",
                kind=trace.SpanKind.PRODUCER,
                attributes={**SEND, **self._queue, **about},
            )
            token = context.attach(trace.set_span_in_context(span))
            propagate.inject(carried)
        try:
            yield [replace(call, context={**call.context, **carried}) for call in calls]
        except BaseException as error:
            self.end(span, error)
            raise
        else:
            self.end(span)
        finally:
            if token:
                context.detach(token)

    def begin(self, call: Call, delivery: Delivery, *, job_id: str) -> "Span | None":
        """Begin the span of a run, in the job's own context, which is thrown away with it."""
        from opentelemetry import context, propagate, trace

        with self._courtesy():
            sent = propagate.extract(call.context, context.Context())
            sender = trace.get_current_span(sent).get_span_context()
            is_linked = self._relation == "link" and sender.is_valid
            span = self._tracer.start_span(
                f"process {self._destination}",
                context=context.Context() if is_linked else sent,
                kind=trace.SpanKind.CONSUMER,
                links=[trace.Link(sender)] if is_linked else None,
                attributes={
                    **PROCESS,
                    **self._queue,
                    MESSAGE_ID: delivery.message_id,
                    METHOD: call.method,
                    JOB_ID: job_id,
                    ATTEMPT: delivery.attempt,
                },
            )
            context.attach(trace.set_span_in_context(span, sent))
            return span
        return None

    def end(self, span: "Span | None", error: BaseException | None = None, stack: str = "") -> None:
        """End a span, and say how that went; `stack` is the traceback as text."""
        if span is None:
            return
        from opentelemetry import trace

        with self._courtesy():
            if error is not None:
                span.set_attribute(ERROR_TYPE, _name_of(type(error)))
                span.set_status(trace.StatusCode.ERROR, _name_of(type(error)))
                span.add_event(EXCEPTION, {f"{EXCEPTION}.type": _name_of(type(error)), STACKTRACE: stack})
            span.end()

    def flush(self) -> threading.Thread:
        """Have what is batched sent now; the thread ends when it is, or never: wait for it as long as you can."""
        from opentelemetry import trace

        def send() -> None:
            with self._courtesy():
                getattr(trace.get_tracer_provider(), "force_flush", int)()

        thread = threading.Thread(target=send, name="spans", daemon=True)
        thread.start()
        return thread

    @contextmanager
    def _courtesy(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._said:
                self._said = True
                self._say(f"OpenTelemetry: {type(error).__name__}: {error}")


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
