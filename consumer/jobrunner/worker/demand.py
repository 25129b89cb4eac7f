"""How many messages to ask for: a rule, and the pace that it goes by; pure, `Hand` calls it under its lock."""

import math
import time
from collections.abc import Callable

from jobrunner.queue.requests import BATCH_MAX

#: The pace of the jobs is that of about the last half second: slow jobs after fast ones show at once.
PACE_SECONDS = 0.5
#: The first jobs after a pause are counted over at least this long, not over the whole memory.
PACE_SECONDS_MIN = 0.05
#: Slower jobs get nothing ahead: neither those that took longer, nor those that keep their threads for longer now.
FAST_SECONDS = 0.5
#: Taken ahead: what is done during one receive, with room for receives that come late.
RECEIVES_AHEAD = 3.0
START_SOON_SECONDS = 0.1
#: What is taken ahead and cannot start is handed back, an attempt each: with no more attempts than this, nothing is.
ATTEMPTS_FEW = 3


def ahead(*, threads: int, job_seconds: float, jobs_per_second: float, receive_seconds: float) -> int:
    """Say how many messages to hold beyond those that run.

    Little's law: to keep the threads busy during a receive takes throughput x its duration. Slow jobs
    get nothing: what waited here for one of them could start at once in another process.
    """
    if job_seconds > FAST_SECONDS or jobs_per_second < threads / FAST_SECONDS:
        return 0
    # Jobs that started together end together, all in one receive's time: up to one more for each thread.
    together = min(threads, round(jobs_per_second * START_SOON_SECONDS))
    return max(together, round(jobs_per_second * receive_seconds * RECEIVES_AHEAD))


def ask(*, threads: int, in_hand: int, asked: int, ahead: int) -> int:
    """Say how many to ask for now, or 0: a receive should be full unless a thread has nothing to do."""
    wanted = threads + ahead - in_hand - asked
    idle = threads - in_hand - asked
    worthwhile = 1 if idle > 0 else min(BATCH_MAX, max(1, ahead // 2))
    return min(wanted, BATCH_MAX) if wanted >= worthwhile else 0


class Pace:
    """Measures how fast jobs end and how long receives take."""

    def __init__(self, *, threads: int, attempts_max: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = threads
        self._may_wait = attempts_max is None or attempts_max > ATTEMPTS_FEW
        self._clock = clock
        self._pace = self._job_seconds = self._receive_seconds = 0.0
        self._paced_at = self._busy_since = clock()

    def received(self, *, busy: int, seconds: float | None) -> None:
        """Note a receive's end; its time only if it came back full: others waited for messages."""
        if busy == 0 and self._now() < 1:
            self._pace, self._busy_since = 0.0, self._clock()
        if seconds is not None:
            self._receive_seconds += 0.2 * (seconds - self._receive_seconds)

    def finished(self, seconds: float) -> None:
        """Note that a job ended, and how long it took."""
        self._job_seconds += 0.2 * (seconds - self._job_seconds)
        self._pace = self._now() + 1 / PACE_SECONDS
        self._paced_at = self._clock()

    def ahead(self) -> int:
        """Say how many messages to hold beyond those that run, at this pace."""
        if not self._may_wait:
            return 0
        age = max(PACE_SECONDS_MIN, self._clock() - self._busy_since)
        return ahead(
            threads=self._threads,
            job_seconds=self._job_seconds,
            jobs_per_second=self._now() / (1 - math.exp(-age / PACE_SECONDS)),
            receive_seconds=self._receive_seconds,
        )

    def _now(self) -> float:
        return self._pace * math.exp((self._paced_at - self._clock()) / PACE_SECONDS)
