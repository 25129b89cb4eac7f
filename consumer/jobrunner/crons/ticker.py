"""Fires the schedule file on a laptop, where no EventBridge is; main thread of `jobrunner crons run`."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from jobrunner.crons.file import Cron

#: Later than this a tick is not fired: the laptop slept, and a burst would help nobody.
LATE_SECONDS_MAX = 30
#: The longest sleep: a clock that is set, or a laptop that wakes up, is noticed by then.
NAP_SECONDS = 1.0


@dataclass(slots=True)
class Next:
    """A cron and the tick it waits for."""

    cron: Cron
    fires: Iterator[datetime]
    at: datetime | None


def run(
    crons: Iterable[Cron],
    fire: Callable[[Cron, datetime], None],
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Fire each tick once, on its second, until no cron has another."""
    waiting = [_first(cron, now()) for cron in crons if cron.enabled]
    while due := [one.at for one in waiting if one.at]:
        seconds = (min(due) - now()).total_seconds()
        if seconds > 0:
            sleep(min(seconds, NAP_SECONDS))
            continue
        for one in waiting:
            if one.at and one.at <= now():
                if (now() - one.at).total_seconds() <= LATE_SECONDS_MAX:
                    fire(one.cron, one.at)
                one.at = next((at for at in one.fires if at > now()), None)


def _first(cron: Cron, moment: datetime) -> Next:
    fires = cron.schedule.after(moment)
    return Next(cron, fires, next(fires, None))
