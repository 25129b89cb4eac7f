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
#: Above this share of `async def` jobs more is asked for than threads are free: they leave theirs at once.
MOSTLY = 0.5
#: Of what awaits, so much may be missing before more is asked for: receives would bring one at a time otherwise.
SPARE = 0.05
#: The share is that among about so many of the last jobs.
SHARE_JOBS = 16
SHARE_MIN = 0.01
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


def ask(
    *,
    threads: int,
    in_hand: int,
    asked: int,
    ahead: int,
    share: float = 0.0,
    awaiting: int = 0,
    room: int = 0,
    may_err: bool = True,
) -> int:
    """Say how many to ask for now, or 0: a receive should be full unless a thread has nothing to do.

    Nobody knows before it comes whether a job wants a thread or the loop. So as many as can start at once
    if the next ones are like the last, of which `share` were `async def` jobs: `awaiting` of those run, and there is
    `room` for so many more. `in_hand` counts those that hold a thread or wait for one.
    `may_err`: what comes and cannot start may be handed back, an attempt each.
    """
    free: float = threads + ahead - in_hand
    worthwhile = 1 if threads - in_hand - asked > 0 else min(BATCH_MAX, max(1, ahead // 2))
    if share > MOSTLY and may_err:
        free = free / (1 - share) if share < 1 else math.inf
        worthwhile = min(BATCH_MAX, max(1, round(awaiting * SPARE)))
    if share:  # before more of what comes is `async def` than there is room for
        free = min(free, room / share if may_err else room)
    wanted = free - asked
    return math.floor(min(wanted, BATCH_MAX)) if wanted >= worthwhile else 0


class Pace:
    """Measures how fast jobs end and how long receives take."""

    def __init__(self, *, threads: int, attempts_max: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = threads
        self.may_wait = attempts_max is None or attempts_max > ATTEMPTS_FEW
        self._clock = clock
        self._pace = self._job_seconds = self._receive_seconds = self._async_share = 0.0
        self._paced_at = self._busy_since = clock()

    def received(self, *, busy: int, seconds: float | None) -> None:
        """Note a receive's end; its time only if it came back full: others waited for messages."""
        if busy == 0 and self._now() < 1:
            self._pace, self._busy_since = 0.0, self._clock()
        if seconds is not None:
            self._receive_seconds += 0.2 * (seconds - self._receive_seconds)

    def started(self, *, is_async: bool) -> None:
        """Note which kind of job started."""
        self._async_share += (is_async - self._async_share) / SHARE_JOBS

    def async_share(self) -> float:
        """Give the share of `async def` jobs among the last that started; 0 where it is next to none."""
        return self._async_share if self._async_share >= SHARE_MIN else 0.0

    def finished(self, seconds: float) -> None:
        """Note that a job ended that held a thread, and how long it took."""
        self._job_seconds += 0.2 * (seconds - self._job_seconds)
        self._pace = self._now() + 1 / PACE_SECONDS
        self._paced_at = self._clock()

    def ahead(self) -> int:
        """Say how many messages to hold beyond those that run, at this pace."""
        if not self.may_wait:
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
