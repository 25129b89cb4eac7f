"""How many messages to ask for, and when: one rule and the few numbers it needs; any thread."""

import math
import threading
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


class Demand:
    """Counts what is asked for and in hand, measures the pace, and lets receivers go by the rule.

    One long poll is out when there is little to do, whatever the number of threads; another may join
    it only while receives come back full.
    """

    def __init__(self, *, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = threads
        self._clock = clock
        self._changed = threading.Condition(threading.Lock())
        self._in_hand = 0
        self._asked = 0
        self._receives = 0
        self._waiting = 0
        self._was_full = False
        self._pace = 0.0
        self._paced_at = self._busy_since = clock()
        self._job_seconds = 0.0
        self._receive_seconds = 0.0
        self._stopped = False

    def in_hand(self) -> int:
        """Count the deliveries that run or wait here."""
        return self._in_hand

    def next_ask(self) -> int:
        """Wait for the next receive's turn; returns how many to ask for, 0 when stopped."""
        with self._changed:
            self._waiting += 1
            while not self._stopped and (most := self._ask()) == 0:
                self._changed.wait()
            self._waiting -= 1
            if self._stopped:
                return 0
            self._receives += 1
            self._asked += most
            self._wake()  # after a full receive another may join this one
            return most

    def received(self, *, asked: int, count: int, seconds: float) -> None:
        """Note a receive's end, before anybody can finish what it brought; 0 also stands for one that failed.

        It wakes nobody: the caller submits first, and its own next question lets others join.
        """
        with self._changed:
            if self._in_hand == 0 and self._pace_now() < 1:
                self._pace, self._busy_since = 0.0, self._clock()
            self._receives -= 1
            self._asked -= asked
            self._in_hand += count
            self._was_full = count >= asked
            if self._was_full:  # others waited for messages, which says nothing of the way there and back
                self._receive_seconds += 0.2 * (seconds - self._receive_seconds)

    def finished(self, seconds: float) -> None:
        """Note that a job ended, and how long it took."""
        with self._changed:
            self._in_hand -= 1
            self._job_seconds += 0.2 * (seconds - self._job_seconds)
            self._pace = self._pace_now() + 1 / PACE_SECONDS
            self._paced_at = self._clock()
            self._wake()

    def dropped(self) -> None:
        """Note that a delivery was handed back without being run."""
        with self._changed:
            self._in_hand -= 1
            self._wake()

    def stop(self) -> None:
        """Let no receive go any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _wake(self) -> None:
        if self._waiting and self._ask():
            self._changed.notify()

    def _ask(self) -> int:
        if self._receives and not self._was_full:
            return 0
        age = max(PACE_SECONDS_MIN, self._clock() - self._busy_since)
        more = ahead(
            threads=self._threads,
            job_seconds=self._job_seconds,
            jobs_per_second=self._pace_now() / (1 - math.exp(-age / PACE_SECONDS)),
            receive_seconds=self._receive_seconds,
        )
        return ask(threads=self._threads, in_hand=self._in_hand, asked=self._asked, ahead=more)

    def _pace_now(self) -> float:
        return self._pace * math.exp((self._paced_at - self._clock()) / PACE_SECONDS)
