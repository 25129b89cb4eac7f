"""AWS's schedule expressions against its documented examples and a minute-by-minute reference."""

import calendar
import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.crons.expression import parse
from jobrunner.errors import ScheduleError

NOW = datetime(2026, 11, 23, 9, 45, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")

#: expression: its next fires strictly after NOW; "never" says that there are no more.
EXAMPLES = """
0 10 * * ? * | 2026-11-23 10:00, 2026-11-24 10:00, 2026-11-25 10:00
1/10 * * * ? * | 2026-11-23 09:51, 2026-11-23 10:01, 2026-11-23 10:11
*/15 * * * ? * | 2026-11-23 10:00, 2026-11-23 10:15, 2026-11-23 10:30
0,30/10 9 * * ? * | 2026-11-23 09:50, 2026-11-24 09:00, 2026-11-24 09:30
0-59/10 0-23/2 ? * * * | 2026-11-23 10:00, 2026-11-23 10:10, 2026-11-23 10:20
0-15/1 8-8 ? * 2,3,4,5,6,7 * | 2026-11-24 08:00, 2026-11-24 08:01, 2026-11-24 08:02
1-31/30 1-1 ? * 1,7 * | 2026-11-28 01:01, 2026-11-28 01:31, 2026-11-29 01:01
0 0/7 * * ? * | 2026-11-23 14:00, 2026-11-23 21:00, 2026-11-24 00:00
0/30 20-2 ? * MON-FRI * | 2026-11-23 20:00, 2026-11-23 20:30, 2026-11-23 21:00
0 18 ? * MON-FRI * | 2026-11-23 18:00, 2026-11-24 18:00, 2026-11-25 18:00
0 8 ? * 2-6 * | 2026-11-24 08:00, 2026-11-25 08:00, 2026-11-26 08:00
0 8 ? * 1 * | 2026-11-29 08:00, 2026-12-06 08:00, 2026-12-13 08:00
0 8 ? * mon,Wed * | 2026-11-25 08:00, 2026-11-30 08:00, 2026-12-02 08:00
0 9 ? * FRI-MON * | 2026-11-27 09:00, 2026-11-28 09:00, 2026-11-29 09:00
0 0 1 NOV-FEB ? * | 2026-12-01 00:00, 2027-01-01 00:00, 2027-02-01 00:00
0 0 1 JAN/3 ? * | 2027-01-01 00:00, 2027-04-01 00:00, 2027-07-01 00:00
15 10 ? * 6L 2019-2028 | 2026-11-27 10:15, 2026-12-25 10:15, 2027-01-29 10:15
0 2 ? * FRIL * | 2026-11-27 02:00, 2026-12-25 02:00, 2027-01-29 02:00
0 2 ? * L * | 2026-11-28 02:00, 2026-12-05 02:00, 2026-12-12 02:00
0 2 ? * SAT#3 * | 2026-12-19 02:00, 2027-01-16 02:00, 2027-02-20 02:00
0 9 ? * 2#1 * | 2026-12-07 09:00, 2027-01-04 09:00, 2027-02-01 09:00
0 9 ? * 3#5 * | 2026-12-29 09:00, 2027-03-30 09:00, 2027-06-29 09:00
0 0 L * ? * | 2026-11-30 00:00, 2026-12-31 00:00, 2027-01-31 00:00
0 0 LW * ? * | 2026-11-30 00:00, 2026-12-31 00:00, 2027-01-29 00:00
0 0 1W * ? * | 2026-12-01 00:00, 2027-01-01 00:00, 2027-02-01 00:00
0 0 15W * ? * | 2026-12-15 00:00, 2027-01-15 00:00, 2027-02-15 00:00
0 0 29 2 ? * | 2028-02-29 00:00, 2032-02-29 00:00, 2036-02-29 00:00
0 0 31 * ? * | 2026-12-31 00:00, 2027-01-31 00:00, 2027-03-31 00:00
0 0 1/10 * ? * | 2026-12-01 00:00, 2026-12-11 00:00, 2026-12-21 00:00
0 12 ? 1-3 MON#1 2027/2 | 2027-01-04 12:00, 2027-02-01 12:00, 2027-03-01 12:00
0 12 1 1 ? 2027 | 2027-01-01 12:00, never
0 12 1 1 ? 2020 | never
0 0 30 2 ? * | never
0 08 * * ? * | 2026-11-24 08:00, 2026-11-25 08:00, 2026-11-26 08:00
"""


def fires(text, zone="UTC", after=NOW, count=3):
    return [fire.astimezone(UTC) for fire in islice(parse(text, ZoneInfo(zone)).after(after), count)]


@pytest.mark.parametrize("line", EXAMPLES.strip().splitlines())
def test_the_examples_fire_when_they_should(line):
    text, times = line.split(" | ")
    expected = [word for word in times.split(", ") if word != "never"]
    found = [f"{fire:%Y-%m-%d %H:%M}" for fire in fires(f"cron({text})", count=len(expected) + times.endswith("never"))]
    assert found == expected


def test_a_nearest_weekday_never_leaves_its_month():
    (august,) = fires("cron(0 0 1W 8 ? 2026)", after=datetime(2026, 1, 1, tzinfo=UTC), count=1)
    assert august == datetime(2026, 8, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 1 * * * *", "exactly one of day-of-month and day-of-week is ?"),
        ("0 9 1 * MON *", "exactly one"),
        ("0 9 ? * ? *", "exactly one"),
        ("0 9 ? * 3#1,6#3 *", "which of the month, 1 to 5"),
        ("0 9 ? * 0 *", "day of week '0' is not 1 to 7 or SUN to SAT"),
        ("0 9 ? * 2#6 *", "1 to 5"),
        ("0 9 ? * 2/2 *", "takes no steps"),
        ("71 8 1 * ? *", "minute '71' is not 0 to 59"),
        ("0 24 * * ? *", "hour '24'"),
        ("0/0 * * * ? *", "step after / is a whole number from 1"),
        ("0 0 ? * MON 2200", "year '2200' is not 1970 to 2199"),
        ("0 0 ? * MON 2030-2020", "ends before it begins"),
        ("0 10 * * ?", "has 5 fields, not 6"),
        ("7 20 * * NOT *", "exactly one"),
        ("7 20 ? * NOT *", "day of week 'NOT'"),
        ("0 dummy ? * MON-FRI *", "hour 'dummy'"),
        ("0 0 31W * ? *", "write LW"),
        ("0 0 L-3 * ? *", "day of month 'L'"),
        ("0 0 32 * ? *", "day of month '32'"),
        ("0 0 1 13 ? *", "month '13' is not 1 to 12 or JAN to DEC"),
        ("", "has 0 fields"),
        ("0 0 1,, * ? *", "day of month ''"),
        ("٣ 0 1 * ? *", "minute"),
    ],
)
def test_what_aws_refuses_is_refused_with_the_reason(text, says):
    with pytest.raises(ScheduleError, match=re.escape(says)):
        parse(f"cron({text})", UTC_ZONE)


@pytest.mark.parametrize(
    "text",
    [
        "rate(1 minutes)",
        "rate(5 minute)",
        "rate(0 minutes)",
        "rate(-1 hours)",
        "rate( 5 minutes)",
        "Rate(5 minutes)",
        "rate(5 weeks)",
        "rate(1.5 hours)",
        "at(2026-11-23)",
        "at(2026-11-23T09:00:00Z)",
        "at(2026-02-30T09:00:00)",
        "every day",
        "cron 0 10 * * ? *",
        "",
    ],
)
def test_other_expressions_are_as_strict(text):
    with pytest.raises(ScheduleError):
        parse(text, UTC_ZONE)


def test_rate_and_at():
    assert fires("rate(5 minutes)", count=2) == [NOW + timedelta(minutes=5), NOW + timedelta(minutes=10)]
    assert fires("rate(1 day)", count=1) == [NOW + timedelta(days=1)]
    assert fires("at(2027-01-01T09:00:00)", "Europe/Berlin") == [datetime(2027, 1, 1, 8, 0, tzinfo=UTC)]
    assert fires("at(2022-12-31T23:59:59)") == []


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("30 2 * * ? *", "America/New_York", "2027-03-13", ["2027-03-13 07:30", "2027-03-15 06:30"]),
        (
            "30 1 * * ? *",
            "America/New_York",
            "2027-11-06",
            ["2027-11-06 05:30", "2027-11-07 05:30", "2027-11-08 06:30"],
        ),
        ("30 2 * * ? *", "Europe/Berlin", "2027-03-27", ["2027-03-27 01:30", "2027-03-29 00:30"]),
        ("30 2 * * ? *", "Europe/Berlin", "2027-10-30", ["2027-10-30 00:30", "2027-10-31 00:30", "2027-11-01 01:30"]),
    ],
)
def test_skipped_hours_do_not_fire_and_repeated_ones_fire_once(text, zone, after, expected):
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert [f"{fire:%Y-%m-%d %H:%M}" for fire in fires(f"cron({text})", zone, moment, len(expected))] == expected


# A second reading of the grammar, with nothing in common but the words: each minute is asked by itself.

ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo"]


def numeric(low, high):
    value = st.integers(low, high)
    one = value.map(str)
    span = st.tuples(value, value).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.tuples(st.one_of(one, st.just("*")), st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.one_of(st.just("*"), st.lists(st.one_of(one, span, step), min_size=1, max_size=3).map(",".join))


month_days = st.one_of(numeric(1, 31), st.just("L"), st.just("LW"), st.integers(1, 28).map(lambda n: f"{n}W"))
week_days = st.one_of(
    st.lists(st.sampled_from(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]), min_size=1, max_size=3).map(",".join),
    st.tuples(st.integers(1, 7), st.integers(1, 7)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.integers(1, 7).map(lambda n: f"{n}L"),
    st.tuples(st.integers(1, 7), st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"),
    st.just("L"),
)
days = st.one_of(month_days.map(lambda d: (d, "?")), week_days.map(lambda d: ("?", d)))
expressions = st.tuples(numeric(0, 59), numeric(0, 23), days, numeric(1, 12)).map(
    lambda parts: f"{parts[0]} {parts[1]} {parts[2][0]} {parts[3]} {parts[2][1]} *"
)


def says(field, value, low, high, names=()):
    """Ask one field about one value."""
    for item in field.split(","):
        body, _, step = item.partition("/")
        start, dash, end = body.partition("-")
        first = low if start == "*" else names.index(start) + low if start in names else int(start)
        if dash:
            last = names.index(end) + low if end in names else int(end)
        else:
            last = high if step or start == "*" else first
        walk = first
        while True:
            if walk == value and ((value - first) % (high - low + 1)) % int(step or 1) == 0:
                return True
            if walk == last:
                break
            walk = walk + 1 if walk < high else low
    return False


def day_says(month_day, week_day, when):
    length = calendar.monthrange(when.year, when.month)[1]
    sunday_first = when.isoweekday() % 7 + 1
    if week_day == "?":
        if month_day == "L":
            return when.day == length
        if month_day.endswith("W"):
            target = length if month_day == "LW" else int(month_day[:-1])
            candidates = [day for day in range(1, length + 1) if calendar.weekday(when.year, when.month, day) < 5]
            return when.day == min(candidates, key=lambda day: (abs(day - target), day)) and target <= length
        return says(month_day, when.day, 1, 31)
    if week_day == "L":
        return sunday_first == 7
    if week_day.endswith("L"):
        return sunday_first == int(week_day[:-1]) and when.day + 7 > length
    if "#" in week_day:
        day, nth = map(int, week_day.split("#"))
        return sunday_first == day and (when.day - 1) // 7 + 1 == nth
    return says(week_day, sunday_first, 1, 7, ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])


def reference(text, zone, start, minutes):
    """Ask each minute of UTC whether it is one; a repeated local minute counts the first time only."""
    minute, hour, month_day, month, week_day, _ = text.split()
    found = []
    for more in range(1, minutes + 1):
        moment = start + timedelta(minutes=more)
        local = moment.astimezone(zone)
        if (
            local.fold == 0
            and says(minute, local.minute, 0, 59)
            and says(hour, local.hour, 0, 23)
            and says(month, local.month, 1, 12)
            and day_says(month_day, week_day, local)
        ):
            found.append(moment)
    return found


starts = st.one_of(
    st.datetimes(datetime(2024, 1, 1), datetime(2035, 1, 1)),
    st.sampled_from(
        [datetime(2027, 3, 13, 20), datetime(2027, 11, 6, 20), datetime(2027, 10, 30, 20), datetime(2027, 4, 3)]
    ),
)


@settings(max_examples=50)  # on each Python, each time others
@given(expressions, st.sampled_from(ZONES), starts)
def test_next_times_agree_with_asking_every_minute(text, zone, start):
    moment = start.replace(second=0, microsecond=0, tzinfo=UTC)
    minutes = 2 * 24 * 60
    expected = reference(text, ZoneInfo(zone), moment, minutes)
    end = moment + timedelta(minutes=minutes)
    found = []
    for fire in parse(f"cron({text})", ZoneInfo(zone)).after(moment):
        if fire > end:
            break
        found.append(fire)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("0 9 * * 1", "cron(0 9 ? * 2 *)"),
        ("cron(0 9 * * 1)", "cron(0 9 ? * 2 *)"),
        ("*/5 * * * *", "cron(*/5 * * * ? *)"),
        ("30 2 1,15 * *", "cron(30 2 1,15 * ? *)"),
        ("0 0 * * 1-5", "cron(0 0 ? * 2-6 *)"),
        ("0 0 * * 0,7", "cron(0 0 ? * 1,1 *)"),
        ("0 0 * * SUN", "cron(0 0 ? * SUN *)"),
        ("0 0 1 * 1", "cron(0 0 ? * 2 *) and cron(0 0 1 * ? *)"),
        ("0 9 * * 5-7", "cron(0 9 ? * 1,6,7 *)"),
        ("@daily", "cron(0 0 * * ? *)"),
        ("@weekly", "cron(0 0 ? * 1 *)"),
    ],
)
def test_a_line_of_a_crontab_is_told_how_aws_writes_it(text, ours):
    with pytest.raises(ScheduleError, match=re.escape(ours)):
        parse(text, ZoneInfo("UTC"))


@pytest.mark.parametrize(
    "text", ["0 9 * * 1/2", "99 9 * * *", "a b c d e", "0 9 * * 0-7", "0 9 * * 5-7/2", "0 9 */2 * 1"]
)
def test_what_no_crontab_means_gets_no_hint(text):
    with pytest.raises(ScheduleError) as caught:
        parse(text, ZoneInfo("UTC"))
    assert "crontab" not in str(caught.value)
