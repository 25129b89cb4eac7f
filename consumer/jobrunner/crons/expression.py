"""AWS's schedule expressions: cron(...), rate(...), at(...); when they fire; pure, any thread.

The dialect is EventBridge Scheduler's (AWS: "Schedule types", "Cron expressions"): six fields, days of
the week 1 to 7 from Sunday, exactly one of the two day fields a question mark.
"""

import calendar
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from jobrunner.errors import ScheduleError

MONTHS = tuple(calendar.month_abbr[number].upper() for number in range(1, 13))
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
YEAR_MIN, YEAR_MAX = 1970, 2199
UNITS = {"minute": 60, "hour": 3600, "day": 86_400}
ANY = "?"
#: What crontabs call some of their lines.
CRONTAB = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS, UNIX_FIELDS = 6, 5


@dataclass(frozen=True, slots=True)
class Field:
    """One of the six: its name, range, and the words that stand for its numbers."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    steps: bool = True
    wraps: bool = True

    def number(self, text: str) -> int:
        """Read a number or a name; raises ScheduleError."""
        if text.upper() in self.words:
            return self.low + self.words.index(text.upper())
        if not re.fullmatch(r"[0-9]{1,4}", text) or not self.low <= int(text) <= self.high:
            raise ScheduleError(f"{self.name} {text!r} is not {self.low} to {self.high}{self._or_words()}")
        return int(text)

    def numbers(self, text: str) -> tuple[int, ...]:
        """Read a list of numbers, ranges and steps; raises ScheduleError."""
        found: set[int] = set()
        for item in text.split(","):
            found.update(self._item(item))
        return tuple(sorted(found))

    def unwrapped(self, text: str) -> str:
        """Write a list with each range that ends before it begins as its numbers; raises ScheduleError."""
        return ",".join(self._unwrapped(item) for item in text.split(","))

    def _unwrapped(self, item: str) -> str:
        first, dash, rest = item.partition("-")
        if dash and self.number(first) > self.number(rest.partition("/")[0]):
            return ",".join(map(str, self.numbers(item)))
        return item

    def _item(self, item: str) -> Iterator[int]:
        span, slash, step = item.partition("/")
        if slash and not self.steps:
            raise ScheduleError(f"{self.name} {item!r}: AWS takes no steps there; list the days")
        if slash and not (step.isascii() and step.isdigit() and int(step)):
            raise ScheduleError(f"{self.name} {item!r}: the step after / is a whole number from 1")
        first, dash, last = span.partition("-")
        low = self.low if span == "*" else self.number(first)
        high = self.number(last) if dash else self.high if slash or span == "*" else low
        if high < low and not self.wraps:
            raise ScheduleError(f"{self.name} {item!r} ends before it begins")
        size = self.high - self.low + 1
        return (self.low + (low - self.low + more) % size for more in range(0, (high - low) % size + 1, int(step or 1)))

    def _or_words(self) -> str:
        return f" or {self.words[0]} to {self.words[-1]}" if self.words else ""


MINUTE, HOUR, DAY = Field("minute", 0, 59), Field("hour", 0, 23), Field("day of month", 1, 31)
MONTH, WEEKDAY = Field("month", 1, 12, MONTHS), Field("day of week", 1, 7, DAYS, steps=False)
YEAR = Field("year", YEAR_MIN, YEAR_MAX, wraps=False)


@dataclass(frozen=True, slots=True)
class MonthDays:
    """The day-of-month field: plain days, `L`, `LW` or `nW`."""

    days: tuple[int, ...] = ()
    last: bool = False
    weekday: bool = False

    @classmethod
    def parse(cls, text: str) -> "MonthDays":
        """Read the field; raises ScheduleError."""
        if text.upper() in ("L", "LW"):
            return cls(last=True, weekday=text.upper() == "LW")
        if near := re.fullmatch(r"([0-9]{1,2})[Ww]", text):
            day = DAY.number(near[1])
            if day == DAY.high:
                raise ScheduleError("day of month '31W' is not the same everywhere in short months: write LW")
            return cls(days=(day,), weekday=True)
        return cls(days=DAY.numbers(text))

    def of(self, year: int, month: int) -> list[int]:
        """Give the days of one month."""
        length = calendar.monthrange(year, month)[1]
        days = [length] if self.last else [day for day in self.days if day <= length]
        return [_nearest_weekday(year, month, day, length) for day in days] if self.weekday else days


@dataclass(frozen=True, slots=True)
class WeekDays:
    """The day-of-week field: days, 0 for Sunday; `nL`, the last of the month; `n#k`, the k-th."""

    days: tuple[int, ...]
    last: bool = False
    nth: int = 0

    @classmethod
    def parse(cls, text: str) -> "WeekDays":
        """Read the field; raises ScheduleError."""
        if text.upper() == "L":  # the last day of the week
            return cls(days=(6,))
        if last := re.fullmatch(r"(\w+)L", text, re.IGNORECASE):
            return cls(days=(WEEKDAY.number(last[1]) - 1,), last=True)
        if "#" in text:
            day, _, nth = text.partition("#")
            if nth not in ("1", "2", "3", "4", "5"):
                raise ScheduleError(f"day of week {text!r}: one day, #, and which of the month, 1 to 5")
            return cls(days=(WEEKDAY.number(day) - 1,), nth=int(nth))
        return cls(days=tuple(number - 1 for number in WEEKDAY.numbers(text)))

    def of(self, year: int, month: int) -> list[int]:
        """Give the days of one month."""
        first, length = calendar.monthrange(year, month)  # 0 is Monday
        days = [day for day in range(1, length + 1) if (first + day) % 7 in self.days]
        if self.last:
            return days[-1:]
        return days[self.nth - 1 : self.nth] if self.nth else days


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron(...) expression, in a time zone."""

    text: str
    zone: ZoneInfo
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: MonthDays | WeekDays
    months: tuple[int, ...]
    years: tuple[int, ...]

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Give the fires strictly after a moment, in UTC.

        A local time that a clock change skips does not fire; one that it repeats fires once, the first time.
        """
        start = moment.astimezone(self.zone).date() - timedelta(days=1)
        for day in self._days_from(start):
            for hour in self.hours:
                for minute in self.minutes:
                    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone)
                    fire = local.astimezone(UTC)
                    exists = fire.astimezone(self.zone).replace(tzinfo=None) == local.replace(tzinfo=None)
                    if exists and fire > moment:
                        yield fire

    def _days_from(self, start: date) -> Iterator[date]:
        for year in self.years:
            if year >= start.year:
                for month in self.months:
                    if (year, month) >= (start.year, start.month):
                        days = (date(year, month, day) for day in self.days.of(year, month))
                        yield from (day for day in days if day >= start)


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate(...) expression: AWS counts from the schedule's creation, we from the moment asked."""

    text: str
    zone: ZoneInfo
    value: int
    unit: str

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Give the fires after a moment, in UTC."""
        step = timedelta(seconds=self.value * UNITS[self.unit])
        fire = moment.astimezone(UTC)
        while fire.year < YEAR_MAX:
            fire += step
            yield fire


@dataclass(frozen=True, slots=True)
class At:
    """An at(...) expression: once."""

    text: str
    zone: ZoneInfo
    local: datetime

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Give the one fire, if it is still to come, in UTC."""
        fire = self.local.replace(tzinfo=self.zone).astimezone(UTC)
        if fire > moment:
            yield fire


Schedule = Cron | Rate | At


def parse(text: str, zone: ZoneInfo) -> Schedule:
    """Read an expression; raises ScheduleError naming the part and the cure."""
    found = re.fullmatch(r"(cron|rate|at)\((.*)\)", text)
    if found is None:
        raise ScheduleError(
            f"{text!r} is not cron(...), rate(...) or at(...){_from_unix(CRONTAB.get(text, text).split())}"
        )
    kind, inner = found.groups()
    read: dict[str, Callable[[str, str, ZoneInfo], Schedule]] = {"cron": _cron, "rate": _rate, "at": _at}
    return read[kind](text, inner, zone)


def _cron(text: str, inner: str, zone: ZoneInfo) -> Cron:
    fields = inner.split()
    if len(fields) != FIELDS:
        names = "minutes hours day-of-month month day-of-week year"
        raise ScheduleError(f"{text!r} has {len(fields)} fields, not {FIELDS}: {names}{_from_unix(fields)}")
    minutes, hours, month_days, months, week_days, years = fields
    if (month_days == ANY) == (week_days == ANY):
        raise ScheduleError(f"{text!r}: exactly one of day-of-month and day-of-week is {ANY}, the other says the days")
    return Cron(
        text=text,
        zone=zone,
        minutes=MINUTE.numbers(minutes),
        hours=HOUR.numbers(hours),
        days=WeekDays.parse(week_days) if month_days == ANY else MonthDays.parse(month_days),
        months=MONTH.numbers(months),
        years=YEAR.numbers(years),
    )


def _from_unix(fields: list[str]) -> str:
    """Say how AWS writes a line of a crontab: six fields, days of the week from 1 for Sunday, one `?`."""
    if len(fields) != UNIX_FIELDS:
        return ""
    minutes, hours, month_days, months, week_days = fields
    if week_days == "*":
        inners = [f"{minutes} {hours} {month_days} {months} {ANY} *"]
    else:
        by_week = re.sub(r"[0-7]", lambda day: str(int(day[0]) % 7 + 1), week_days)
        if re.search(r"(\d)-\1", by_week):
            return ""  # 0-7: every day, and no longer a range once both are Sunday
        with suppress(ScheduleError):  # what no list is has no meaning below either
            by_week = WEEKDAY.unwrapped(by_week)
        inners = [f"{minutes} {hours} {ANY} {months} {by_week} *"]
        if month_days.startswith("*") and month_days != "*":
            return ""  # both days at once, which AWS has no words for
        if month_days != "*":  # a crontab means either
            inners.append(f"{minutes} {hours} {month_days} {months} {ANY} *")
    with suppress(ScheduleError):
        for inner in inners:
            _cron("", inner, ZoneInfo("UTC"))
        return f". What a crontab calls {' '.join(fields)!r} is {' and '.join(f'cron({inner})' for inner in inners)}"
    return ""


def _rate(text: str, inner: str, zone: ZoneInfo) -> Rate:
    found = re.fullmatch(r"([1-9][0-9]{0,5}) (minute|hour|day)(s?)", inner)
    if found is None or (found[1] == "1") == bool(found[3]):
        raise ScheduleError(f"{text!r} is not rate(1 minute), rate(5 minutes), rate(1 hour), rate(2 days) or alike")
    return Rate(text, zone, int(found[1]), found[2])


def _at(text: str, inner: str, zone: ZoneInfo) -> At:
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", inner):
        raise ScheduleError(f"{text!r} is not at(yyyy-mm-ddThh:mm:ss), without a zone: that is the timezone's")
    try:
        return At(text, zone, datetime.fromisoformat(inner))
    except ValueError as error:
        raise ScheduleError(f"{text!r}: {error}") from None


def _nearest_weekday(year: int, month: int, day: int, length: int) -> int:
    """Move a Saturday or Sunday to the nearest weekday of the same month."""
    weekday = calendar.weekday(year, month, day)
    if weekday == calendar.SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == calendar.SUNDAY:
        return day + 1 if day < length else day - 2
    return day
