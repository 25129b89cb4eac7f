"""The rhythms: what must be done again and again, whatever the jobs do; threads "keeper" and "reporter"."""

import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

TICK_SECONDS = 0.5


def keep(duties: Sequence[Callable[[], None]]) -> NoReturn:
    """Look after what is in hand: due renewals, what cannot start, limits; all duties at each tick, for ever.

    They put things in line for others and make no request themselves: an SQS that hangs, or a name that
    does not resolve, must not stop them. One that raises is an error of ours.
    """
    while True:
        time.sleep(TICK_SECONDS)
        for duty in duties:
            duty()


def report(courtesies: Sequence[Callable[[], None]], log: FilteringBoundLogger) -> NoReturn:
    """Tell the world: the status file, the metrics; all at each tick, for ever.

    Courtesies: one that fails is said once, and tried again. A disk may hang, so nothing waits for this thread.
    """
    failing: set[Callable[[], None]] = set()
    while True:
        for courtesy in courtesies:
            try:
                courtesy()
            except Exception as error:
                if courtesy not in failing:
                    failing.add(courtesy)
                    log.warning("courtesy.failed", error=str(error), effect="nothing waits for it; tried again")
            else:
                failing.discard(courtesy)
        time.sleep(TICK_SECONDS)
