"""The requests about a queue that only a person's commands make; main thread of a command."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Literal

from jobrunner.errors import AccessDenied, QueueError
from jobrunner.message import decode_or_none
from jobrunner.queue.endpoint import Endpoint, queue_arn
from jobrunner.queue.requests import BATCH_MAX, OURS, REASON, SOURCE, Queue, QueueAttributes, Refusal, asked, refusals
from jobrunner.queue.schedules import unwrapped
from jobrunner.settings import check_queue_url

#: A person waits: short tries, and botocore repeats them.
CONNECT_SECONDS, READ_SECONDS, TRIES = 3.0, 10.0, 3
#: CloudWatch: how far back to look; it has a figure a minute while a queue is in use.
LOOK_BACK_SECONDS = 600
OLDEST = ("ApproximateAgeOfOldestMessage", "Maximum")
#: Its figures are beside the point: where it cannot be reached nobody waits for it.
FIGURES_SECONDS = 3.0
MINUTE_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One message of a dead-letter queue, with all that a second life needs; `sent_at` in epoch seconds."""

    message_id: str
    receipt_handle: str
    body: str
    sent_at: float
    receives: int
    source_arn: str | None = None
    group: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    #: It came as the call of SQS that Scheduler could not make.
    wrapped: bool = False

    def document(self) -> dict[str, Any]:
        """Give it as JSON, its body parsed unless it is malformed."""
        return {
            "message_id": self.message_id,
            "sent_at": utc(self.sent_at),
            "receives": self.receives,
            "group": self.group,
            "attributes": {name: str(given.get("StringValue", "binary")) for name, given in self.attributes.items()},
            "body": json.loads(self.body) if decode_or_none(self.body) else self.body,
        }

    @property
    def reason(self) -> str:
        """Why its job gave it up by itself; empty if SQS moved it here."""
        return self._said(REASON)

    @property
    def source(self) -> str:
        """The name of the queue on which it died; empty if nobody knows."""
        return (self.source_arn or "").rpartition(":")[2] or self._said(SOURCE)

    def _said(self, name: str) -> str:
        return str(self.attributes.get(name, {}).get("StringValue", ""))

    @property
    def size(self) -> int:
        """Count about as SQS does: the body's bytes and the attributes'."""
        return len(self.body.encode()) + sum(len(str(item)) for item in self.attributes.items())


@dataclass(frozen=True, slots=True)
class Permission:
    """What became of a try to do something: proven, not refused, or refused with SQS's own words."""

    action: str
    verdict: Literal["proven", "not refused", "refused"]
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What CloudWatch knows of a queue; None where it has no figure, may not be asked, or is not there."""

    oldest_seconds: float | None = None
    sent_per_second: float | None = None
    deleted_per_second: float | None = None


class OperatedQueue:
    """One queue as its keeper sees it. Each request raises QueueError or a kind of it."""

    def __init__(self, *, url: str, endpoint: Endpoint, client: Any) -> None:
        self.url = url
        self._endpoint = endpoint
        self._client = client
        self._queue = Queue(url=url, polling=client, working=client)
        self.delete = self._queue.delete
        self.change_visibility = self._queue.change_visibility
        self.clock_skew_seconds = 0.0

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @cached_property
    def arn(self) -> str:
        """The name that policies and moves know it by: the queue's own word, or what its URL says."""
        try:
            own = self.values().get("QueueArn")
        except QueueError:
            own = None
        return own or queue_arn(self.url, self._endpoint.region)

    @cached_property
    def _cloudwatch(self) -> Any:
        return self._endpoint.other_client("cloudwatch", read_seconds=FIGURES_SECONDS, attempts=1)

    def values(self) -> Mapping[str, str]:
        """Ask for every attribute, and note how far our clock is from SQS's."""
        try:
            answer = asked(self._client.get_queue_attributes, QueueUrl=self.url, AttributeNames=["All"])
        except QueueError as error:
            self._note_clock(getattr(error.__cause__, "response", None) or {})
            raise
        self._note_clock(answer)
        values: Mapping[str, str] = answer.get("Attributes", {})
        return values

    def _note_clock(self, answer: Mapping[str, Any]) -> None:
        if date := answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"):
            self.clock_skew_seconds = time.time() - parsedate_to_datetime(date).timestamp()

    def dead_letters(self, values: Mapping[str, str]) -> "OperatedQueue | None":
        """Give the dead-letter queue that the attributes name; it is in the same account and region (AWS)."""
        url = QueueAttributes(values).dead_letters_url(self.url)
        return OperatedQueue(url=url, endpoint=self._endpoint, client=self._client) if url else None

    def length(self) -> int:
        """Say about how many messages wait here."""
        return int(self.values().get("ApproximateNumberOfMessages", 0))

    def receive(self, *, hidden_seconds: int, wait_seconds: int) -> list[DeadLetter]:
        """Take up to 10 messages out of sight for a while."""
        answer = asked(
            self._client.receive_message,
            QueueUrl=self.url,
            MaxNumberOfMessages=BATCH_MAX,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=hidden_seconds,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return [_dead_letter(message) for message in answer.get("Messages", ())]

    def send(self, letters: Sequence[DeadLetter]) -> dict[int, Refusal]:
        """Send up to 10 messages of 1 MiB in all as they were; returns the refusals by position."""
        entries = []
        for index, letter in enumerate(letters):
            extra = {"MessageGroupId": letter.group} if letter.group else {}
            kept = {name: given for name, given in letter.attributes.items() if name not in OURS}
            attributes = {"MessageAttributes": kept} if kept else {}
            entries.append({"Id": str(index), "MessageBody": letter.body, **extra, **attributes})
        return refusals(asked(self._client.send_message_batch, QueueUrl=self.url, Entries=entries))

    def sources(self) -> list[str]:
        """List the queues whose dead letters come here."""
        answer = asked(self._client.list_dead_letter_source_queues, QueueUrl=self.url)
        return list(answer.get("queueUrls", ()))

    def start_move(self, arn: str, destination_arn: str) -> None:
        """Let SQS itself move all of a dead-letter queue; it does not know where what was sent there came from."""
        asked(self._client.start_message_move_task, SourceArn=arn, DestinationArn=destination_arn)

    def move_state(self, arn: str) -> tuple[int, str, str]:
        """Say how the last move goes: how many it has moved, its status, and why it failed."""
        tasks = asked(self._client.list_message_move_tasks, SourceArn=arn, MaxResults=1).get("Results", ())
        if not tasks:
            raise QueueError(f"SQS knows of no move task of {arn}")
        task = tasks[0]
        return task.get("ApproximateNumberOfMessagesMoved", 0), task["Status"], task.get("FailureReason", "")

    def permissions(self) -> Iterator[Permission]:
        """Try each action by a batch that can change nothing, wherever it is accepted.

        An answer about the entry proves the permission; any other refusal only shows that this one was
        not given. Receiving is not tried: wherever such a request is accepted it spends an attempt.
        """
        bad = {"Id": "check", "ReceiptHandle": "jobrunner-check"}
        yield self._tried("sqs:DeleteMessage", self._client.delete_message_batch, [bad])
        yield self._tried(
            "sqs:ChangeMessageVisibility",
            self._client.change_message_visibility_batch,
            [{**bad, "VisibilityTimeout": 0}],
        )
        yield self.may_send()

    def may_send(self) -> Permission:
        """Try to send nothing."""
        return self._tried("sqs:SendMessage", self._client.send_message_batch, [])

    def _tried(
        self, action: str, request: Callable[..., Mapping[str, Any]], entries: list[dict[str, Any]]
    ) -> Permission:
        try:
            asked(request, QueueUrl=self.url, Entries=entries)
        except AccessDenied as error:
            return Permission(action, "refused", str(error))
        except QueueError:
            return Permission(action, "not refused")
        return Permission(action, "proven" if entries else "not refused")

    def figures(self) -> Figures:
        """Ask CloudWatch what it says of the newest minute that it knows; where it says nothing once, no more."""
        try:
            oldest = self._figure(*OLDEST)
            sent, deleted = (self._figure(f"NumberOfMessages{what}", "Sum") for what in ("Sent", "Deleted"))
        except QueueError:
            return Figures()
        return Figures(
            oldest_seconds=oldest,
            sent_per_second=None if sent is None else sent / MINUTE_SECONDS,
            deleted_per_second=None if deleted is None else deleted / MINUTE_SECONDS,
        )

    def oldest_seconds(self) -> float | None:
        """Ask CloudWatch how old the oldest message is; None where it has no figure or may not be asked."""
        try:
            return self._figure(*OLDEST)
        except QueueError:
            return None

    def _figure(self, metric: str, statistic: str) -> float | None:
        if self._cloudwatch is None:
            return None
        now = datetime.now(UTC)
        answer = asked(
            self._cloudwatch.get_metric_statistics,
            Namespace="AWS/SQS",
            MetricName=metric,
            Dimensions=[{"Name": "QueueName", "Value": self.name}],
            StartTime=now - timedelta(seconds=LOOK_BACK_SECONDS),
            EndTime=now,
            Period=MINUTE_SECONDS,
            Statistics=[statistic],
        )
        points = sorted(answer.get("Datapoints", ()), key=lambda point: point["Timestamp"])
        return float(points[-1][statistic]) if points else None


def operated(queue_url: str) -> OperatedQueue:
    """Make a queue for a person's command; raises SettingsError for what cannot be a queue's URL."""
    check_queue_url(queue_url)
    endpoint = Endpoint(queue_url)
    client = endpoint.client(read_seconds=READ_SECONDS, attempts=TRIES, connections=2, connect_seconds=CONNECT_SECONDS)
    return OperatedQueue(url=queue_url, endpoint=endpoint, client=client)


def utc(seconds: float) -> str:
    """Write a time of SQS's for a person or a program."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def span(seconds: float) -> str:
    """Write a number of seconds for a person, in the largest unit of which there are two."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _dead_letter(message: Mapping[str, Any]) -> DeadLetter:
    system = message.get("Attributes", {})
    body, group = unwrapped(message["Body"])
    return DeadLetter(
        message_id=message["MessageId"],
        receipt_handle=message["ReceiptHandle"],
        body=body,
        wrapped=body != message["Body"],
        sent_at=int(system.get("SentTimestamp", 0)) / 1000,
        receives=int(system.get("ApproximateReceiveCount", 0)),
        source_arn=system.get("DeadLetterQueueSourceArn"),
        group=system.get("MessageGroupId") or group,
        attributes={
            name: {key: value for key, value in given.items() if key in ("DataType", "StringValue", "BinaryValue")}
            for name, given in message.get("MessageAttributes", {}).items()
        },
    )
