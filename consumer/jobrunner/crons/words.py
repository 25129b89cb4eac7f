"""Says a schedule in English; pure, any thread."""

import calendar

from jobrunner.crons.expression import DAY, YEAR_MAX, YEAR_MIN, At, Cron, MonthDays, Rate, Schedule, WeekDays

NTH = ("", "first", "second", "third", "fourth", "fifth")
#: More clock times than this are described, not listed.
TIMES_MAX = 6
FULL_DAY, FULL_HOUR, FULL_YEAR, WEEK = 24, 60, 12, 7


def explain(schedule: Schedule) -> str:
    """Say when a schedule fires, its time zone last."""
    zone = schedule.zone.key
    if isinstance(schedule, Rate):
        return f"every {schedule.unit}" if schedule.value == 1 else f"every {schedule.value} {schedule.unit}s"
    if isinstance(schedule, At):
        return f"once, at {schedule.local:%H:%M:%S on %-d %B %Y}, {zone}"
    parts = [_times(schedule), _days(schedule.days), _months(schedule), _years(schedule)]
    return " ".join(part for part in parts if part) + f", {zone}"


def _times(cron: Cron) -> str:
    if len(cron.minutes) * len(cron.hours) <= TIMES_MAX:
        return "at " + _list([f"{hour:02}:{minute:02}" for hour in cron.hours for minute in cron.minutes])
    if len(cron.minutes) == FULL_HOUR:
        minutes = "every minute"
    elif step := _step(cron.minutes, FULL_HOUR):
        minutes = f"every {step} minutes"
    else:
        minutes = f"at {_list([f':{minute:02}' for minute in cron.minutes])}"
    if len(cron.hours) == FULL_DAY:
        return minutes if minutes.startswith("every") else f"{minutes} of every hour"
    return f"{minutes} in the hours {_spans(cron.hours)}"


def _days(days: MonthDays | WeekDays) -> str:
    return _month_days(days) if isinstance(days, MonthDays) else _week_days(days)


def _month_days(days: MonthDays) -> str:
    if days.last:
        return "on the last weekday of the month" if days.weekday else "on the last day of the month"
    if days.weekday:
        return f"on the weekday nearest to day {days.days[0]} of the month"
    return "every day" if len(days.days) == DAY.high else f"on day {_spans(days.days)} of the month"


def _week_days(days: WeekDays) -> str:
    names = [calendar.day_name[(day - 1) % WEEK] for day in days.days]
    if days.last:
        return f"on the last {names[0]} of the month"
    if days.nth:
        return f"on the {NTH[days.nth]} {names[0]} of the month"
    if days.days == (1, 2, 3, 4, 5):
        return "Monday to Friday"
    return "every day" if len(names) == WEEK else f"every {_list(names)}"


def _months(cron: Cron) -> str:
    return "" if len(cron.months) == FULL_YEAR else "in " + _list([calendar.month_name[month] for month in cron.months])


def _years(cron: Cron) -> str:
    return "" if len(cron.years) > YEAR_MAX - YEAR_MIN else f"in {_spans(cron.years)}"


def _step(numbers: tuple[int, ...], size: int) -> int:
    """Give the step of an even series that fills its range from 0, else 0."""
    step = numbers[1] if len(numbers) > 1 else 0
    return step if step and size % step == 0 and numbers == tuple(range(0, size, step)) else 0


def _spans(numbers: tuple[int, ...]) -> str:
    if numbers[-1] > numbers[0] + 1 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return _list([str(number) for number in numbers])


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
