"""All that is asked of a queue, in our words, and what botocore's errors mean; any thread may call it."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError

from jobrunner.errors import (
    AccessDenied,
    LastingQueueError,
    QueueError,
    QueueNotFound,
    RequestRefused,
    SettingsError,
)
from jobrunner.message import BODY_BYTES_MAX, Delivery
from jobrunner.queue.endpoint import CONNECT_SECONDS, Endpoint, aws, naming_credentials

Item = TypeVar("Item")

#: AWS: entries of one batch request.
BATCH_MAX = 10
#: The attributes of a dead letter that a job itself gave up: why, on which queue, and its message id there.
REASON, SOURCE, WAS = OURS = ("jobrunner.reason", "jobrunner.source", "jobrunner.message_id")
#: How much longer than the long poll a receive may take.
POLL_MARGIN_SECONDS = 5

#: KMS's own are spelled in two ways: as the SQS model has them, and as they come over the wire.
THROTTLES = {
    "RequestThrottled",
    "ThrottlingException",
    "Throttling",
    "KmsThrottled",
    "KMS.ThrottlingException",
    "OverLimit",
    "TooManyRequests",
}
SERVER_FAULT = 500
FORBIDDEN = (401, 403)
ACCESS_CODES = ("AccessDenied", "Expired", "Signature", "Credential", "InvalidClientTokenId", "InvalidSecurity")
#: What a delete or a renewal is told when the delivery is no longer ours; servers spell it differently.
LEASE_GONE = {"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue", "InvalidAttributeValue"}
LEASE_GONE |= {f"{code}Exception" for code in LEASE_GONE}  # LocalStack's


@dataclass(frozen=True, slots=True)
class Refusal:
    """One entry of a batch that SQS did not carry out."""

    code: str
    sender_fault: bool
    message: str

    def __str__(self) -> str:
        """Say it as SQS does."""
        return f"{self.code}: {self.message}"

    @property
    def lease_gone(self) -> bool:
        """Whether trying again is pointless: the receipt handle no longer holds the message."""
        return self.code.removeprefix("AWS.SimpleQueueService.") in LEASE_GONE


@dataclass(frozen=True, slots=True)
class QueueAttributes:
    """What the queue itself says, by AWS's names in `values`."""

    values: Mapping[str, str]

    @property
    def visibility_timeout_seconds(self) -> int:
        """How long a received message is hidden unless a receive says otherwise; raises SettingsError."""
        if "VisibilityTimeout" not in self.values:
            raise SettingsError("the queue does not say its visibility timeout: pass --visibility-timeout, such as 60")
        return int(self.values["VisibilityTimeout"])

    @property
    def redrive(self) -> Mapping[str, Any]:
        """When a message becomes a dead letter, and where; empty for never."""
        policy: Mapping[str, Any] = json.loads(self.values.get("RedrivePolicy") or "{}")
        return policy

    @property
    def attempts_max(self) -> int | None:
        """How often a message is received before it is a dead letter."""
        return int(self.redrive["maxReceiveCount"]) if "maxReceiveCount" in self.redrive else None

    def dead_letters_url(self, queue_url: str) -> str | None:
        """Say where the dead letters of this queue are: in the same account and region (AWS)."""
        arn = self.redrive.get("deadLetterTargetArn")
        if not arn:
            return None
        account, name = arn.split(":")[4:]
        place = queue_url.rpartition("/")[0]
        if urlsplit(queue_url).path.count("/") > 1:
            place = f"{place.rpartition('/')[0]}/{account}"
        return f"{place}/{name}"


class Queue:
    """One queue's requests in our own words. Each raises QueueError or a kind of it."""

    def __init__(self, *, url: str, polling: Any, working: Any, dead_url: str | None = None) -> None:
        self.url = url
        self._dead_url = dead_url
        self._polling = polling
        self._working = working

    def receive(
        self, *, most: int, wait_seconds: int, visibility_timeout_seconds: int, probing: bool = False
    ) -> list[Delivery]:
        """Ask for up to `most` deliveries; a probe asks shortly, through the client with short timeouts."""
        answer = asked(
            (self._working if probing else self._polling).receive_message,
            QueueUrl=self.url,
            MaxNumberOfMessages=min(most, BATCH_MAX),
            WaitTimeSeconds=0 if probing else wait_seconds,
            VisibilityTimeout=visibility_timeout_seconds,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId"],
        )
        return [_delivery(message) for message in answer.get("Messages") or ()]

    def delete(self, handles: Sequence[str]) -> dict[int, Refusal]:
        """Delete up to 10 deliveries; returns the refusals by position."""
        entries = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)]
        return refusals(asked(self._working.delete_message_batch, QueueUrl=self.url, Entries=entries))

    def change_visibility(self, changes: Iterable[tuple[str, int]]) -> dict[int, Refusal]:
        """Hide up to 10 deliveries for some seconds from now (0: visible at once); returns the refusals."""
        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for index, (handle, seconds) in enumerate(changes)
        ]
        return refusals(asked(self._working.change_message_visibility_batch, QueueUrl=self.url, Entries=entries))

    def send(self, bodies: Sequence[str], *, delay_seconds: int | None, group: str | None) -> dict[int, Refusal]:
        """Send up to 10 bodies of 1 MiB in all; returns the refusals by position.

        A delay of None is the queue's own: SQS takes a 0 for an order.
        """
        extra = {} if delay_seconds is None else {"DelaySeconds": delay_seconds}
        return self._send([(body, group) for body in bodies], extra)

    def send_anew(self, copies: Sequence[tuple[str, str | None]]) -> dict[int, Refusal]:
        """Send up to 10 bodies of 1 MiB in all, each with its group; returns the refusals by position."""
        return self._send(copies, {})

    def _send(self, messages: Sequence[tuple[str, str | None]], extra: Mapping[str, int]) -> dict[int, Refusal]:
        entries = [
            {"Id": str(index), "MessageBody": body, **({"MessageGroupId": group} if group else {}), **extra}
            for index, (body, group) in enumerate(messages)
        ]
        return refusals(asked(self._working.send_message_batch, QueueUrl=self.url, Entries=entries))

    def bury(self, delivery: Delivery, reason: str) -> None:
        """Put a copy of a delivery among the dead letters, with the reason, its queue and its message id."""
        if self._dead_url is None:
            raise RequestRefused("the queue has no dead-letter queue")
        said = {REASON: reason, SOURCE: self.url.rpartition("/")[2], WAS: delivery.message_id}
        attributes = {name: {"DataType": "String", "StringValue": text} for name, text in said.items()}
        group: dict[str, Any] = {"MessageGroupId": delivery.group} if delivery.group else {}
        request = self._working.send_message
        asked(request, QueueUrl=self._dead_url, MessageBody=delivery.body, MessageAttributes=attributes, **group)

    def attributes(self) -> QueueAttributes:
        """Ask the queue for its settings."""
        answer = asked(self._polling.get_queue_attributes, QueueUrl=self.url, AttributeNames=["All"])
        return QueueAttributes(answer.get("Attributes", {}))


def tens(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut items into requests of ten."""
    for start in range(0, len(items), BATCH_MAX):
        yield items[start : start + BATCH_MAX]


def batches(sizes: Sequence[int]) -> list[list[int]]:
    """Cut bodies, given by their bytes, into requests of ten and of 1 MiB: both are SQS's limits. Gives positions."""
    found: list[list[int]] = []
    room = 0
    for index, size in enumerate(sizes):
        if not found or len(found[-1]) == BATCH_MAX or size > room:
            found.append([])
            room = BODY_BYTES_MAX
        found[-1].append(index)
        room -= size
    return found


def connect(
    queue_url: str, *, wait_seconds: int, visibility_timeout_seconds: int | None, connections: int
) -> tuple[Queue, QueueAttributes]:
    """Make a worker's queue: one client that polls and one for the rest; asks the queue for its settings.

    Neither client retries by itself: the loops pace their own tries, and a hidden one would break the pace.
    """
    endpoint = Endpoint(queue_url)
    polling = endpoint.lean_client(
        read_seconds=wait_seconds + POLL_MARGIN_SECONDS,
        attempts=1,
        connections=connections,
        connect_seconds=CONNECT_SECONDS,
    )
    attributes = Queue(url=queue_url, polling=polling, working=polling).attributes()
    polling.close()  # of botocore's connections: what it is asked for from here on goes over ours, or over new ones
    seconds = visibility_timeout_seconds or attributes.visibility_timeout_seconds
    working = _working(endpoint, visibility_seconds=seconds, connections=connections)
    dead_url = attributes.dead_letters_url(queue_url)
    return Queue(url=queue_url, polling=polling, working=working, dead_url=dead_url), attributes


def working_queue(queue_url: str, *, visibility_seconds: int) -> Queue:
    """Make a queue for settling one delivery; asks nothing."""
    client = _working(Endpoint(queue_url), visibility_seconds=visibility_seconds, connections=2)
    return Queue(url=queue_url, polling=client, working=client)


def _working(endpoint: Endpoint, *, visibility_seconds: float, connections: int) -> Any:
    # A renewal that hangs must leave time for others before leases end: at most a sixth of their length.
    seconds = min(CONNECT_SECONDS, visibility_seconds / 6)
    return endpoint.lean_client(read_seconds=seconds, attempts=1, connections=connections, connect_seconds=seconds)


def _delivery(message: Mapping[str, Any]) -> Delivery:
    attributes = message.get("Attributes") or {}
    try:
        return Delivery(
            message_id=message["MessageId"],
            receipt_handle=message["ReceiptHandle"],
            body=message["Body"],
            attempt=int(attributes["ApproximateReceiveCount"]),
            sent_at=int(attributes["SentTimestamp"]) / 1000,
            group=attributes.get("MessageGroupId"),
        )
    except KeyError as error:
        raise LastingQueueError(
            f"the server gives messages without {error}: jobrunner asks each receive for ApproximateReceiveCount and "
            "SentTimestamp, which SQS always gives; use another emulator, or look at what stands between"
        ) from None


def refusals(answer: Mapping[str, Any]) -> dict[int, Refusal]:
    """Read what a batch request did not do: SQS answers 200 even when it did nothing."""
    return {
        int(entry["Id"]): Refusal(entry.get("Code", ""), entry.get("SenderFault", False), entry.get("Message", ""))
        for entry in answer.get("Failed") or ()
    }


def asked(request: Callable[..., Mapping[str, Any]], **parameters: object) -> Mapping[str, Any]:
    """Make a request; raises QueueError or a kind of it."""
    try:
        with naming_credentials():
            return request(**parameters)
    except ClientError as error:
        raise _translated(error, str(parameters.get("QueueUrl", ""))) from error
    except ParamValidationError as error:
        raise RequestRefused(f"not sent: {error}") from error
    except (BotoCoreError, ResponseParserError, OSError, RuntimeError) as error:
        raise QueueError(f"SQS did not answer: {error}{_laptop(str(error))}") from error


def _laptop(text: str) -> str:
    if "//127.0.0.1" not in text and "//localhost" not in text:
        return ""
    return (
        " (is `jobrunner dev` still running? It has a new port at each start, unless you give it one: source its file)"
    )


def _overridden() -> str:
    """Say where the question went, if not to the queue URL's own host."""
    name = next((name for name in ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL") if os.environ.get(name)), None)
    return f". It was asked at {os.environ[name]}: {name} overrides the URL's host" if name else ""


def _translated(error: ClientError, queue_url: str) -> QueueError:
    code = error.response["Error"].get("Code", "")
    text = f"{code}: {error.response['Error'].get('Message', '')}"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if "QueueDoesNotExist" in code or "NonExistentQueue" in code:
        return QueueNotFound(
            f"{text} No queue {queue_url} in this account and region, or it may not be seen: "
            f"`{aws(queue_url)} sqs get-queue-url --queue-name NAME` prints its URL{_overridden()}"
        )
    if code in THROTTLES or status >= SERVER_FAULT:
        return QueueError(text)
    if status in FORBIDDEN or code.startswith(("Kms", "KMS.")) or any(word in code for word in ACCESS_CODES):
        return AccessDenied(
            f"{text} ({error.operation_name} on {queue_url}): the role needs sqs:ReceiveMessage, sqs:DeleteMessage, "
            "sqs:ChangeMessageVisibility and sqs:GetQueueAttributes to consume, sqs:SendMessage to enqueue, "
            "and kms:Decrypt, kms:GenerateDataKey where the queue has its own key"
        )
    return RequestRefused(text)
