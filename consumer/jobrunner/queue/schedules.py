"""One-time schedules of EventBridge Scheduler, for messages later than SQS's 15 minutes; any thread.

Each has the id of its job for a name, fires within the minute that it is due, and is gone then. They lie in a
group of their own, which no other command of ours looks into.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from jobrunner.errors import AccessDenied, QueueError, RequestRefused, SettingsError
from jobrunner.message import decode
from jobrunner.queue.endpoint import Endpoint, naming_credentials

#: Two tries fit into what a web request may take.
CONNECT_SECONDS = 0.5
#: AWS: what a target's Input may have.
INPUT_BYTES_MAX = 262_144
#: Tried for a day before it goes to the dead letters (AWS: the most, as is the number of tries).
EVENT_AGE_SECONDS, RETRIES = 86_400, 185
TIME = "at(%Y-%m-%dT%H:%M:%S)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """One message that waits for its time, and the name of the queue that it is for."""

    id: str
    queue: str
    at: datetime
    body: str
    group: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where they lie, and with which role Scheduler sends them."""

    group: str
    role_arn: str
    dead_letter_arn: str | None

    @classmethod
    def told(cls, environment: Mapping[str, str]) -> "Place":
        """Read it from the variables; raises SettingsError."""
        group, role_arn = (environment.get(f"JOBRUNNER_LATER_{name}", "") for name in ("GROUP", "ROLE_ARN"))
        if not (group and role_arn):
            raise SettingsError(
                "later than 15 minutes is a schedule of EventBridge Scheduler: set JOBRUNNER_LATER_GROUP and "
                "JOBRUNNER_LATER_ROLE_ARN, which deploy/aws/jobrunner.yaml gives, and `jobrunner dev` on a laptop"
            )
        return cls(group=group, role_arn=role_arn, dead_letter_arn=environment.get("JOBRUNNER_LATER_DEAD_LETTER_ARN"))


class Schedules:
    """The schedules of one place, for one queue. Each request raises QueueError or a kind of it."""

    def __init__(
        self,
        *,
        place: Place,
        queue_url: str,
        read_seconds: float,
        connect_seconds: float = CONNECT_SECONDS,
        attempts: int = 1,
    ) -> None:
        self._place = place
        self._queue_url = queue_url
        endpoint = Endpoint(queue_url)
        self._client: Any = endpoint.scheduler(
            read_seconds=read_seconds, connect_seconds=connect_seconds, attempts=attempts
        )
        self._queue_arn = endpoint.arn()

    def create(self, job_id: str, body: str, at: datetime, *, group: str | None) -> None:
        """Have a body sent at a time, rounded up to the minute: never early. One that is there already is fine."""
        target = {"RoleArn": self._place.role_arn, **self._target(body, group)}
        target["RetryPolicy"] = {"MaximumEventAgeInSeconds": EVENT_AGE_SECONDS, "MaximumRetryAttempts": RETRIES}
        if self._place.dead_letter_arn:
            target["DeadLetterConfig"] = {"Arn": self._place.dead_letter_arn}
        made = self._ask(
            self._client.create_schedule,
            fine="ConflictException",
            Name=job_id,
            ScheduleExpression=rounded_up(at).strftime(TIME),
            ScheduleExpressionTimezone="UTC",
            FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target=target,
        )
        if made is None:  # by a try whose answer was lost, or by somebody who gave another job this id
            self._check_same(job_id, body, at)

    def _check_same(self, job_id: str, body: str, at: datetime) -> None:
        there = self.get(job_id)
        if there and (there.at, _what(there.body)) != (rounded_up(at), _what(body)):
            raise RequestRefused(
                f"another job waits under the id {job_id!r}, for {there.at.isoformat()}: cancel({job_id!r}) first, "
                "or give this one an id of its own"
            )

    def make_group(self) -> None:
        """Make the place, for an emulator: in AWS the template does. One that is there is fine."""
        self._ask(lambda GroupName: self._client.create_schedule_group(Name=GroupName), fine="ConflictException")  # noqa: N803

    def delete(self, job_id: str) -> bool:
        """Take one away; False if it is not there."""
        return self._ask(self._client.delete_schedule, fine="ResourceNotFoundException", Name=job_id) is not None

    def get(self, job_id: str) -> Scheduled | None:
        """Look at one; None if it is not there."""
        found = self._ask(self._client.get_schedule, fine="ResourceNotFoundException", Name=job_id)
        if found is None:
            return None
        at = datetime.strptime(found["ScheduleExpression"], TIME).replace(tzinfo=UTC)
        target = found["Target"]
        body, group = unwrapped(target["Input"])
        queue = json.loads(target["Input"])["QueueUrl"] if body != target["Input"] else target["Arn"]
        return Scheduled(id=job_id, queue=re.split("[:/]", queue)[-1], at=at, body=body, group=group)

    def ids(self) -> Iterator[str]:
        """List them all, a page at a time."""
        return (job_id for job_id, _ in self.listed())

    def listed(self) -> Iterator[tuple[str, datetime]]:
        """List them all with the time when each was made, a page at a time."""
        more: dict[str, Any] = {}
        while True:
            page = self._ask(self._client.list_schedules, **more) or {}
            yield from ((each["Name"], each["CreationDate"]) for each in page.get("Schedules", ()))
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def _target(self, body: str, group: str | None) -> dict[str, Any]:
        text = input_of(self._queue_url, body, group)
        if group is None:
            return {"Arn": self._queue_arn, "Input": text}
        partition = self._queue_arn.split(":")[1]
        return {"Arn": f"arn:{partition}:scheduler:::aws-sdk:sqs:sendMessage", "Input": text}

    def _ask(
        self, request: Callable[..., dict[str, Any]], *, fine: str = "", **parameters: Any
    ) -> dict[str, Any] | None:
        """Make a request; None where the answer is the error that is fine."""
        try:
            with naming_credentials():
                return request(GroupName=self._place.group, **parameters)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == fine and not re.search("schedule ?group", str(error), re.IGNORECASE):
                return None
            raise self._translated(code, error) from error
        except (BotoCoreError, RuntimeError) as error:
            raise QueueError(f"EventBridge Scheduler did not answer: {error}") from error

    def _translated(self, code: str, error: ClientError) -> QueueError:
        if "AccessDenied" in code:
            return AccessDenied(
                f"{error}: the role needs scheduler:CreateSchedule, scheduler:GetSchedule and scheduler:DeleteSchedule "
                f"in the group {self._place.group}, and iam:PassRole on {self._place.role_arn}"
            )
        if code == "ResourceNotFoundException":
            return RequestRefused(
                f"no schedule group {self._place.group!r}: deploy/aws/jobrunner.yaml makes it ({error})"
            )
        if code in ("ValidationException", "ServiceQuotaExceededException"):
            return RequestRefused(str(error))
        return QueueError(str(error))


def rounded_up(at: datetime) -> datetime:
    """Give the minute at which Scheduler may send what should not come before a time."""
    at = at.astimezone(UTC)
    minute = at.replace(second=0, microsecond=0)
    return minute if minute == at else minute + timedelta(minutes=1)


def input_of(queue_url: str, body: str, group: str | None) -> str:
    """Give a target's Input: the body, or with a message group the call of SQS that sends it.

    A plain SQS target takes no message group where the queue is no FIFO queue; the call itself does.
    """
    if group is None:
        return body
    return json.dumps({"QueueUrl": queue_url, "MessageBody": body, "MessageGroupId": group})


def _what(body: str) -> tuple[object, ...]:
    """Give what a job is about: not who asks for it, in which request."""
    call = decode(body)
    return call.method, call.params


def unwrapped(text: str) -> tuple[str, str | None]:
    """Give the body and the message group of a target's Input, as it also comes to the dead letters."""
    try:
        call = json.loads(text)
    except ValueError:
        return text, None
    if isinstance(call, dict) and {"QueueUrl", "MessageBody"} <= call.keys() and isinstance(call["MessageBody"], str):
        return call["MessageBody"], call.get("MessageGroupId")
    return text, None
