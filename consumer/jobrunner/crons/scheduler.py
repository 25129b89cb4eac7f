"""Makes EventBridge Scheduler agree with the schedule file; the only room that writes crons there. Main thread.

All schedules live in one group of our own, by app and environment. A group without our tag is
somebody else's, and refused. What is equal is never written: a rate() schedule would fire at once.
"""

import hashlib
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from jobrunner.crons import plain
from jobrunner.crons.expression import At
from jobrunner.crons.file import Cron
from jobrunner.errors import AccessDenied, JobrunnerError, ScheduleError
from jobrunner.message import PLACEHOLDER, encode
from jobrunner.queue.endpoint import naming_credentials

STAND_IN = "0001-01-01T00:00:00Z"
#: An outage must not end in a burst of old ticks: Scheduler gives a tick up after this (AWS: 60 to 86,400 s).
EVENT_AGE_SECONDS, EVENT_AGE_SECONDS_MIN, EVENT_AGE_SECONDS_MAX = 3600, 60, 86_400
RETRIES = 185
NAME_LENGTH_MAX, DESCRIPTION_LENGTH_MAX = 64, 512
#: A role that a stack has just made is not seen at once by all of AWS.
ROLE_SECONDS_MAX, ROLE_PAUSE_SECONDS = 60.0, 5.0
#: In what AWS says of one that it does not see yet.
ROLE_NOT_SEEN = "execution role"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Whose schedules these are, and where they send."""

    app: str
    environment: str
    queue_arn: str
    role_arn: str
    dead_letter_arn: str | None = None

    @property
    def group(self) -> str:
        """The schedule group's name."""
        return f"jobrunner-{self.app}-{self.environment}"

    @property
    def tags(self) -> dict[str, str]:
        """What marks the group as ours."""
        return {
            "jobrunner:managed-by": "jobrunner",
            "jobrunner:app": self.app,
            "jobrunner:env": self.environment,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the file and the group: create, update, delete, past (skipped) or extra (left alone)."""

    kind: str
    name: str
    lines: tuple[str, ...] = ()
    schedule: Mapping[str, Any] | None = None


class Scheduler:
    """The schedule group of a place; `client` is botocore's."""

    def __init__(self, *, place: Place, client: Any) -> None:
        if len(place.group) > NAME_LENGTH_MAX:
            raise ScheduleError(
                f"the group's name {place.group!r} is over {NAME_LENGTH_MAX} characters: shorten --app or --env"
            )
        self._place = place
        self._client = client

    def plan(self, crons: Iterable[Cron], *, prune: bool) -> list[Change]:
        """Compare; raises ScheduleError if the group is not ours."""
        crons = list(crons)
        past = {schedule_name(cron.name) for cron in crons if is_past(cron)}
        wanted = {schedule_name(cron.name): self._wanted(cron) for cron in crons}
        found = self._group_is_there()
        changes = [] if found else [Change("create", f"group {self._place.group}")]
        existing = set(self._names()) if found else set()
        for name, schedule in wanted.items():
            if name in past:  # Scheduler refuses it, and it has nothing left to do
                changes.append(Change("past", name))
            elif name not in existing:
                changes.append(Change("create", name, tuple(_flat(schedule)), schedule))
            elif lines := self._differences(name, schedule):
                changes.append(Change("update", name, lines, schedule))
        kind = "delete" if prune else "extra"
        return changes + [Change(kind, name) for name in sorted(existing - set(wanted))]

    def apply(self, changes: Iterable[Change]) -> list[str]:
        """Carry changes out, each for itself; returns what failed. To plan and apply again does the rest."""
        failures: list[str] = []
        deadline = time.monotonic() + ROLE_SECONDS_MAX
        left = iter(changes)
        for change in left:
            try:
                self._apply(change, deadline)
            except JobrunnerError as error:
                failures.append(f"{change.name}: {error}")
                if change.schedule is None and change.kind == "create":
                    failures += [f"{each.name}: not tried without the group" for each in left if each.schedule]
        return failures

    def _apply(self, change: Change, deadline: float) -> None:
        if change.kind == "delete":
            self._ask("delete_schedule", missing_is_fine=True, GroupName=self._place.group, Name=change.name)
        elif change.schedule is None and change.kind == "create":
            tags = [{"Key": key, "Value": value} for key, value in self._place.tags.items()]
            self._ask("create_schedule_group", there_is_fine=True, Name=self._place.group, Tags=tags)
        elif change.kind == "create" and self._write("create_schedule", change, deadline) is None:
            self._write("update_schedule", change, deadline)  # somebody else made it meanwhile
        elif change.kind == "update":
            self._write("update_schedule", change, deadline)

    def _write(self, operation: str, change: Change, deadline: float) -> Any:
        """Write a schedule; right after its role was made, until the deadline, since AWS sees its trust late."""
        fine = operation == "create_schedule"
        while True:
            try:
                return self._ask(operation, there_is_fine=fine, **self._named(change))
            except ScheduleError as error:
                if ROLE_NOT_SEEN not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(ROLE_PAUSE_SECONDS)

    def _named(self, change: Change) -> dict[str, Any]:
        schedule = dict(change.schedule or {})
        return {"Name": change.name, "GroupName": self._place.group, "ClientToken": str(uuid.uuid4()), **schedule}

    def _group_is_there(self) -> bool:
        group = self._ask("get_schedule_group", missing_is_fine=True, Name=self._place.group)
        if group is None:
            return False
        answer = self._ask("list_tags_for_resource", ResourceArn=group["Arn"]) or {}
        tags = {tag["Key"]: tag["Value"] for tag in answer.get("Tags", ())}
        if not self._place.tags.items() <= tags.items():
            raise ScheduleError(
                f"the schedule group {self._place.group!r} exists without our tags {self._place.tags}: "
                "it is somebody else's. Choose another --app or --env"
            )
        return True

    def _names(self) -> Iterator[str]:
        more: dict[str, Any] = {}
        while True:
            page = self._ask("list_schedules", GroupName=self._place.group, **more) or {}
            yield from (schedule["Name"] for schedule in page.get("Schedules", ()))
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def _differences(self, name: str, wanted: Mapping[str, Any]) -> tuple[str, ...]:
        answer = self._ask("get_schedule", missing_is_fine=True, GroupName=self._place.group, Name=name) or {}
        is_there = dict(_pairs({key: answer.get(key) for key in wanted}))
        should = dict(_pairs(wanted))
        return tuple(
            f"{key}: {is_there.get(key)!r} -> {should.get(key)!r}"
            for key in sorted(should.keys() | is_there.keys())
            if is_there.get(key) != should.get(key)
        )

    def _wanted(self, cron: Cron) -> dict[str, Any]:
        age = cron.max_age_seconds or EVENT_AGE_SECONDS
        target: dict[str, Any] = {
            "Arn": self._place.queue_arn,
            "RoleArn": self._place.role_arn,
            "Input": encode(cron.call(STAND_IN)).replace(STAND_IN, PLACEHOLDER),
            "RetryPolicy": {
                "MaximumEventAgeInSeconds": min(max(age, EVENT_AGE_SECONDS_MIN), EVENT_AGE_SECONDS_MAX),
                "MaximumRetryAttempts": RETRIES,
            },
        }
        if self._place.dead_letter_arn:
            target["DeadLetterConfig"] = {"Arn": self._place.dead_letter_arn}
        return {
            "ScheduleExpression": plain.text_of(cron.schedule),
            "ScheduleExpressionTimezone": plain.zone_of(cron.schedule),
            "State": "ENABLED" if cron.enabled else "DISABLED",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "Description": f"jobrunner: {cron.name}. {cron.description}".strip()[:DESCRIPTION_LENGTH_MAX],
            "Target": target,
        }

    def _ask(
        self, operation: str, *, missing_is_fine: bool = False, there_is_fine: bool = False, **parameters: Any
    ) -> dict[str, Any] | None:
        """Make a request; None for what is missing, or there already, where that is fine."""
        try:
            with naming_credentials():
                answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if (code == "ResourceNotFoundException" and missing_is_fine) or (
                code == "ConflictException" and there_is_fine
            ):
                return None
            kind = AccessDenied if "AccessDenied" in code else ScheduleError
            raise kind(f"{operation} {parameters.get('Name', '')}: {error}") from error
        except BotoCoreError as error:
            raise JobrunnerError(f"{operation}: {error}") from error
        return answer


def is_past(cron: Cron) -> bool:
    """Tell whether its one time is over."""
    return isinstance(cron.schedule, At) and next(cron.schedule.after(datetime.now(UTC)), None) is None


def schedule_name(name: str) -> str:
    """Name the schedule of a cron: readable, and unique even where names differ by a cut."""
    return f"{name[:55]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _pairs(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _pairs(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


def _flat(schedule: Mapping[str, Any]) -> Iterator[str]:
    return (f"{key}: {value!r}" for key, value in _pairs(schedule))
