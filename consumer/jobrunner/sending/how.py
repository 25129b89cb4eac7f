"""How a call is sent: when, and in which message group; checked before anything is; any thread."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobrunner.errors import SettingsError

#: AWS: what is later needs a schedule.
DELAY_SECONDS_MAX = 900
GROUP = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """A delay of SQS's (None: the queue's own), or a later time; and the message group."""

    delay_seconds: int | None = None
    later_at: datetime | None = None
    group: str | None = None

    @classmethod
    def checked(
        cls, *, delay_seconds: int | timedelta | None = None, at: datetime | None = None, group: str | None = None
    ) -> "How":
        """Make it of what a caller says; raises SettingsError, naming the value and the cure."""
        _check_group(group)
        if at is None:
            return cls(delay_seconds=_delay(delay_seconds), group=group)
        if delay_seconds is not None:
            raise SettingsError(f"at is {at} and delay_seconds is {delay_seconds!r}: give one of them")
        if not isinstance(at, datetime) or at.utcoffset() is None:
            raise SettingsError(
                f"at is {at!r}: give a datetime with its zone, such as datetime.now(UTC) + timedelta(days=3)"
            )
        try:
            at.astimezone(UTC) + timedelta(minutes=1)  # Scheduler's own, to which it is rounded up
        except OverflowError:
            raise SettingsError(f"at is {at}, at an end of the calendar: give a time that can come") from None
        seconds = (at - datetime.now(UTC)).total_seconds()
        if seconds <= DELAY_SECONDS_MAX:
            return cls(delay_seconds=max(0, math.ceil(seconds)), group=group)
        return cls(later_at=at, group=group)


def _delay(given: int | timedelta | None) -> int | None:
    """Give whole seconds, rounded up: never early."""
    seconds = math.ceil(given.total_seconds()) if isinstance(given, timedelta) else given
    if seconds is None:
        return None
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise SettingsError(f"delay_seconds is {given!r}: give whole seconds, or a timedelta")
    if seconds < 0:
        raise SettingsError(f"delay_seconds is {seconds}: leave it out for a job that is due already")
    if seconds > DELAY_SECONDS_MAX:
        raise SettingsError(
            f"delay_seconds is {seconds}, and SQS takes 0 to {DELAY_SECONDS_MAX}: "
            "for later than that say at=, a datetime, which is a schedule of EventBridge Scheduler"
        )
    return seconds


def _check_group(group: object) -> None:
    """Raise SettingsError for what SQS takes for no message group (AWS: 1 to 128 visible ASCII characters)."""
    if group is not None and not (isinstance(group, str) and GROUP.fullmatch(group)):
        raise SettingsError(f"group is {group!r:.200}: give a text of 1 to 128 visible ASCII characters")
