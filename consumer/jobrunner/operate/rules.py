"""What a queue's attributes should be, and what mends those that are not; pure, no thread.

Every rule has its reason in one sentence and its cure as a command. The figures come from AWS's SQS
Developer Guide (quotas, visibility timeout, dead-letter queues).
"""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from jobrunner.message import BODY_BYTES_MAX
from jobrunner.operate import policies
from jobrunner.operate.queues import span
from jobrunner.queue.endpoint import aws
from jobrunner.queue.requests import QueueAttributes
from jobrunner.settings import HELD_SHARE_MAX, VISIBILITY_SECONDS_MIN

Level = Literal["ok", "warn", "error"]
Values = Mapping[str, str]

DAY = 86_400
#: Renewals come every third of it: below the first they are frequent, above the second a dead worker's jobs wait long.
VISIBILITY_SECONDS_SHORT, VISIBILITY_SECONDS_GOOD, VISIBILITY_SECONDS_LONG = 30, 60, 900
#: Each receive spends an attempt, also one that a deploy hands back.
ATTEMPTS_LEAST, ATTEMPTS_GOOD = 3, 5
RETENTION_SECONDS_MAX = 14 * DAY
#: AWS: about 120,000 messages may be in flight; beyond that a long poll brings nothing and says nothing.
IN_FLIGHT_MAX = 120_000
OLDEST_SECONDS_GOOD = 900


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what it is, why it matters, and what mends it."""

    level: Level
    subject: str
    value: str
    why: str = ""
    cure: str = ""

    def lines(self) -> Iterator[str]:
        """Give it as text."""
        yield f"{self.level:<5}  {self.subject}: {self.value}"
        if self.why:
            yield f"       why:  {self.why}"
        if self.cure:
            yield f"       cure: {self.cure}"


def of_queue(values: Values, *, queue_url: str, visibility_seconds: int, job_timeout_seconds: int) -> Iterator[Finding]:
    """Judge what a queue says of itself; what it does not say is passed over."""

    def mend(**attributes: str) -> str:
        return _set(queue_url, attributes)

    own = str(visibility_seconds) == values.get("VisibilityTimeout")
    cure = mend(VisibilityTimeout="60") if own else "jobrunner consume --visibility-timeout 60"
    yield _visibility(visibility_seconds, cure)
    yield _job_timeout(job_timeout_seconds, visibility_seconds)
    yield _attempts(values, queue_url, mend)
    if seconds := int(values.get("DelaySeconds", 0)):
        why = "every job waits this long, those that should start at once too"
        yield Finding("warn", "delay", f"{seconds} s", why, mend(DelaySeconds="0"))
    size = int(values.get("MaximumMessageSize", BODY_BYTES_MAX))
    if size < BODY_BYTES_MAX:
        why = f"enqueue lets bodies of up to {BODY_BYTES_MAX:,} bytes through, and this queue refuses them"
        yield Finding("warn", "message size", f"{size:,} bytes", why, mend(MaximumMessageSize=str(BODY_BYTES_MAX)))
    retention = int(values.get("MessageRetentionPeriod", 4 * DAY))
    if retention < DAY:
        why = "jobs that wait for longer are lost: an outage over night is enough"
        cure = mend(MessageRetentionPeriod=str(4 * DAY))
        yield Finding("warn", "retention", span(retention), why, cure)
    yield from _in_flight(values)
    yield from _encryption(values, mend)
    yield from _senders(values, mend)


def of_dead_letters(values: Values, dead: Values, *, dead_url: str, queue_url: str) -> Iterator[Finding]:
    """Judge the dead-letter queue beside its queue."""
    if (values.get("FifoQueue") == "true") != (dead.get("FifoQueue") == "true"):
        yield Finding(
            "error",
            "dead-letter type",
            "one of the two is FIFO",
            "SQS moves dead letters only to a queue of the same type",
            f"create a standard queue and name it in the RedrivePolicy of {queue_url}",
        )
    kept, dead_kept = (int(each.get("MessageRetentionPeriod", 0)) for each in (values, dead))
    if kept and dead_kept:
        fine = dead_kept > kept
        longer = _set(dead_url, {"MessageRetentionPeriod": str(RETENTION_SECONDS_MAX)})
        shorter = _set(queue_url, {"MessageRetentionPeriod": str(4 * DAY)})
        yield Finding(
            "ok" if fine else "error",
            "dead-letter retention",
            f"{span(dead_kept)}, the queue's is {span(kept)}",
            "" if fine else "a dead letter keeps the age it had: it may be deleted on the day it arrives",
            "" if fine else longer if dead_kept < RETENTION_SECONDS_MAX else shorter,
        )
    count = int(dead.get("ApproximateNumberOfMessages", 0))
    yield Finding(
        "warn" if count else "ok",
        "dead letters",
        str(count),
        "each is a job that was given up" if count else "",
        f"jobrunner dead list --queue-url {queue_url}" if count else "",
    )


def of_methods(module: str, count: int) -> Finding:
    """Judge whether a module has anything that messages may call."""
    if count:
        return Finding("ok", "module", f"{module}: {count} method{'' if count == 1 else 's'}")
    why = "every message would be an unknown method"
    cure = f"write public functions in {module}, or name another --module"
    return Finding("error", "module", f"{module}: no methods", why, cure)


def of_logging(*, is_heard: bool) -> Finding:
    """Judge whether the lines of jobs come out."""
    if is_heard:
        return Finding("ok", "logging", "the app's lines come out as ours do")
    why = "lines of the app's standard logging do not come out here, or without the ids of their job"
    cure = "call fileConfig or dictConfig in the web server only, or leave its root logger without handlers"
    return Finding("warn", "logging", "the app has taken jobrunner's handler off the root logger", why, cure)


def of_oldest(seconds: float | None) -> Finding:
    """Judge how long the oldest message has been waiting, where anybody knows."""
    if seconds is None:
        return Finding("ok", "oldest message", "not known (CloudWatch has no figure, or may not be asked)")
    late = seconds > OLDEST_SECONDS_GOOD
    return Finding(
        "warn" if late else "ok",
        "oldest message",
        span(seconds),
        "jobs come in faster than they are done, or nobody consumes" if late else "",
        "raise supervisord's numprocs or add containers; jobrunner status --watch shows whether it helps"
        if late
        else "",
    )


def _visibility(seconds: int, cure: str) -> Finding:
    value = f"{seconds} s; a job that holds the interpreter for {seconds * HELD_SHARE_MAX:.0f} s ends its process"
    if seconds < VISIBILITY_SECONDS_MIN:
        why, level = "consume refuses it: there is no room for renewals before a lease ends", "error"
    elif seconds < VISIBILITY_SECONDS_SHORT:
        why, level = "leases are renewed every third of it, and a slow minute of the machine ends them", "warn"
    elif seconds > VISIBILITY_SECONDS_LONG:
        why, level = "the jobs of a worker that dies start elsewhere only after this time", "warn"
    else:
        return Finding("ok", "visibility timeout", value)
    return Finding(level, "visibility timeout", value, why, cure)  # type: ignore[arg-type]


def _job_timeout(seconds: int, visibility_seconds: int) -> Finding:
    if not seconds:
        why = "a job that hangs keeps its thread, and its message, until the process ends"
        return Finding("warn", "job timeout", "none", why, "jobrunner consume --job-timeout 3600")
    if seconds < visibility_seconds and visibility_seconds > VISIBILITY_SECONDS_GOOD:
        why = "a lease longer than any job may run only delays the jobs of a worker that dies"
        cure = f"jobrunner consume --visibility-timeout {VISIBILITY_SECONDS_GOOD}"
        return Finding("warn", "job timeout", f"{seconds} s, shorter than the visibility timeout", why, cure)
    return Finding("ok", "job timeout", f"{seconds} s")


def _attempts(values: Values, queue_url: str, mend: Callable[..., str]) -> Finding:
    redrive = QueueAttributes(values).redrive
    if not redrive:
        name = values.get("QueueArn", "jobs").rpartition(":")[2]
        policy = json.dumps({"deadLetterTargetArn": f"{values.get('QueueArn', 'ARN')}-dead", "maxReceiveCount": 10})
        return Finding(
            "error",
            "dead-letter queue",
            "none",
            "a job that fails for ever is tried until its message expires, and then it is gone without a word",
            f"{create_dead(queue_url, f'{name}-dead')} && {mend(RedrivePolicy=policy)}",
        )
    attempts = int(redrive["maxReceiveCount"])
    if attempts >= ATTEMPTS_GOOD:
        return Finding("ok", "attempts", f"{attempts} (maxReceiveCount)")
    why = "each receive spends an attempt: also that of a job which a deploy hands back, or whose worker dies"
    cure = mend(RedrivePolicy=json.dumps({**redrive, "maxReceiveCount": 10}))
    return Finding(
        "error" if attempts < ATTEMPTS_LEAST else "warn", "attempts", f"{attempts} (maxReceiveCount)", why, cure
    )


def _in_flight(values: Values) -> Iterator[Finding]:
    count = int(values.get("ApproximateNumberOfMessagesNotVisible", 0))
    near = count > IN_FLIGHT_MAX // 2
    yield Finding(
        ("error" if count > IN_FLIGHT_MAX * 9 // 10 else "warn") if near else "ok",
        "in flight",
        f"{count:,} of {IN_FLIGHT_MAX:,}",
        "at the limit a long poll brings nothing, without an error" if near else "",
        "find who receives and never deletes; a shorter visibility timeout gives messages back sooner" if near else "",
    )


def _encryption(values: Values, mend: Callable[..., str]) -> Iterator[Finding]:
    key = values.get("KmsMasterKeyId")
    if key:
        yield Finding("ok", "encryption", f"KMS key {key}; roles need kms:Decrypt and kms:GenerateDataKey on it")
    elif values.get("SqsManagedSseEnabled") == "true":
        yield Finding("ok", "encryption", "SQS's own key")
    elif "SqsManagedSseEnabled" in values:
        why = "params lie on SQS's disks in the clear"
        yield Finding("warn", "encryption", "none", why, mend(SqsManagedSseEnabled="true"))


def _senders(values: Values, mend: Callable[..., str]) -> Iterator[Finding]:
    """Judge the queue policy: whoever may send may call any job with any params."""
    own_account = values.get("QueueArn", ":::::").split(":")[4]
    policy = json.loads(values.get("Policy") or "{}")
    found = list(policies.senders(policy))
    for statement, who in found:
        if reason := policies.reason_to_worry(statement, who, own_account):
            cure = mend(Policy=policies.without(policy, statement))
            yield Finding("error" if who == "*" else "warn", "who may send", who, reason, cure)
    names = ", ".join(who for _, who in found)
    yield Finding("ok", "queue policy", f"lets send: {names}" if names else "none: roles decide")


def create_dead(queue_url: str, name: str) -> str:
    """Give the command that makes a dead-letter queue."""
    attributes = f"MessageRetentionPeriod={RETENTION_SECONDS_MAX}"
    return f"{aws(queue_url)} sqs create-queue --queue-name {name} --attributes {attributes}"


def _set(queue_url: str, attributes: Mapping[str, str]) -> str:
    command = f"{aws(queue_url)} sqs set-queue-attributes --queue-url {queue_url}"
    return f"{command} --attributes {shlex.quote(json.dumps(attributes))}"
