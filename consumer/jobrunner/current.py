"""The job that this thread or task is running, for the job's own code and for every log line."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jobrunner.errors import NoCurrentJob
from jobrunner.message import Call, Delivery


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentJob:
    """What a job may know of its delivery.

    `id` is the same each time that SQS delivers the message: make it the idempotency key.
    `message_id` is SQS's, new with each send. `attempt` counts from 1 to `attempts_max`, None where the queue
    has no dead-letter queue.
    """

    id: str
    message_id: str
    method: str
    attempt: int
    attempts_max: int | None = None
    sent_at: datetime
    scheduled_at: datetime | None
    context: dict[str, str]
    _is_stopping: Callable[[], bool] = field(default=_never, repr=False, compare=False)

    @property
    def stopping(self) -> bool:
        """Whether this job's process has been asked to end: a long job saves where it stands, and returns."""
        return self._is_stopping()

    @classmethod
    def of(
        cls,
        call: Call,
        delivery: Delivery,
        *,
        attempts_max: int | None = None,
        is_stopping: Callable[[], bool] = _never,
    ) -> "CurrentJob":
        """Make it from what the message asks and how it came."""
        return cls(
            id=call.id or delivery.message_id,
            message_id=delivery.message_id,
            method=call.method,
            attempt=delivery.attempt,
            attempts_max=attempts_max,
            sent_at=datetime.fromtimestamp(delivery.sent_at, UTC),
            scheduled_at=datetime.fromisoformat(call.scheduled_at) if call.scheduled_at else None,
            context=call.context,
            _is_stopping=is_stopping,
        )


#: A context variable and not an attribute: coroutines of several jobs share one thread.
running: ContextVar[CurrentJob | None] = ContextVar("jobrunner_current_job", default=None)


def current_job() -> CurrentJob:
    """Return the running job's delivery; raises NoCurrentJob outside one."""
    job = running.get()
    if job is None:
        raise NoCurrentJob(
            "current_job() was called outside a job: only a job's own thread or task has one. In a test, run the job "
            "by jobrunner.testing, or with JOBRUNNER_QUEUE_URL=inline: and enqueue(...), and it has one there too"
        )
    return job
