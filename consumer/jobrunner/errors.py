"""Every error of ours and every exit code; no thread, no state."""

from enum import IntEnum
from functools import partial
from typing import Any


class ExitCode(IntEnum):
    """Why the process ended: one code per reason."""

    STOPPED = 0
    UNEXPECTED = 1
    SETTINGS = 2
    APP = 3
    NO_QUEUE = 4
    ACCESS = 5
    JOB_TIMEOUT = 6
    POLL_STUCK = 7
    THREAD_DIED = 8
    RECYCLED = 9
    SECOND_SIGNAL = 10
    UNREACHABLE = 11


#: What each code says to the person who reads it; the README's table is checked against it.
EXIT_REASONS = {
    ExitCode.STOPPED: "stopped as asked: SIGTERM, SIGINT, or the queue was empty with --stop-when-empty",
    ExitCode.UNEXPECTED: "the dead-man's switch (a job held the interpreter), or an error nobody foresaw",
    ExitCode.SETTINGS: "a flag, an argument or an environment variable is missing or wrong",
    ExitCode.APP: "the jobs module, Django or the --around callable could not be loaded",
    ExitCode.NO_QUEUE: "the queue does not exist, or may not be seen",
    ExitCode.ACCESS: "credentials are missing, expired or lack a permission",
    ExitCode.JOB_TIMEOUT: "a job outlived --job-timeout",
    ExitCode.POLL_STUCK: "no receive came back for three times its longest time",
    ExitCode.THREAD_DIED: "one of the worker's own threads broke, or a job closed descriptors that are not its own",
    ExitCode.RECYCLED: "--max-memory-mb was reached",
    ExitCode.SECOND_SIGNAL: "a second SIGTERM or SIGINT: at once, nothing handed back",
    ExitCode.UNREACHABLE: "SQS did not answer (commands that are asked once; consume waits instead)",
}


class JobrunnerError(Exception):
    """Root of all our errors; the message names the value and the cure."""

    exit_code = ExitCode.UNEXPECTED


class SettingsError(JobrunnerError):
    """A setting is missing, malformed or out of its range."""

    exit_code = ExitCode.SETTINGS


class MalformedMessage(JobrunnerError, ValueError):
    """A body is not the wire format, or a call cannot be written as one."""

    exit_code = ExitCode.SETTINGS


class UnknownMethod(JobrunnerError, LookupError):
    """No job of that name is in the catalog."""

    exit_code = ExitCode.SETTINGS


class BadParams(JobrunnerError, TypeError):
    """The params do not fit the function's signature."""

    exit_code = ExitCode.SETTINGS


class NoCurrentJob(JobrunnerError, LookupError):
    """`current_job()` was called outside a job."""


class AppError(JobrunnerError):
    """The app's module could not be loaded."""

    exit_code = ExitCode.APP


class NoSuchModule(AppError):
    """The named module does not exist under the app's directory."""


class AppImportFailed(AppError):
    """The named module exists and raised while it was imported."""


class AroundBroken(AppError):
    """What `--around` names gave no context manager: the job did not run."""


class ScheduleError(JobrunnerError, ValueError):
    """A schedule expression, or the file it stands in, is wrong."""

    exit_code = ExitCode.SETTINGS


class QueueError(JobrunnerError):
    """SQS did not do what was asked; it may the next time. `job_id`: of the call that `enqueue` tried to send."""

    exit_code = ExitCode.UNREACHABLE
    job_id: str | None = None


class LastingQueueError(QueueError):
    """SQS refused for a reason that time alone seldom mends."""


class QueueNotFound(LastingQueueError):
    """No such queue in this account and region."""

    exit_code = ExitCode.NO_QUEUE


class AccessDenied(LastingQueueError):
    """The credentials are missing, wrong, expired or not allowed to do this."""

    exit_code = ExitCode.ACCESS


class OutageTooLong(JobrunnerError):
    """SQS has refused for so long that a fresh process should try; it ends with the refusal's own code."""

    def __init__(self, refusal: LastingQueueError) -> None:
        super().__init__(str(refusal))
        self.exit_code = refusal.exit_code


class RequestRefused(QueueError):
    """SQS understood the request and will not do it: nothing was done."""


class EnqueueError(JobrunnerError):
    """Some calls of `enqueue_many` did not verifiably reach the queue.

    The three lists hold positions in the caller's list: `sent` are on the queue,
    `not_sent` are not, and of `unknown` SQS never said. `ids` holds the job id of each call,
    so that an unknown one can be sent again under the caller's own idempotency rules.
    """

    def __init__(
        self, message: str, *, sent: list[int], not_sent: list[int], unknown: list[int], ids: list[str]
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.not_sent = not_sent
        self.unknown = unknown
        self.ids = ids

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it cross between processes: pools and test runners pickle it."""
        again = partial(EnqueueError, sent=self.sent, not_sent=self.not_sent, unknown=self.unknown, ids=self.ids)
        return again, (str(self),)
