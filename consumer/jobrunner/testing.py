"""For an app's tests: what the code under test enqueues, collected and not sent; any thread, any event loop.

with enqueued() as jobs:
    client.post("/orders/7")
    assert jobs == [("orders.ship", {"number": 7})]
    jobs.run()
"""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from unittest.mock import patch

from jobrunner.app.loading import load_around
from jobrunner.message import decode
from jobrunner.sending import delivery, inline, later
from jobrunner.sending.how import How

__all__ = ["Enqueued", "Jobs", "enqueued"]
RUNS_MAX = 10_000
QUEUE_URL = "JOBRUNNER_QUEUE_URL"
#: The queue of what is collected, where none is named.
NOWHERE = "https://sqs.us-east-1.amazonaws.com/000000000000/enqueued"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """One job as it would have been sent; equal to another, or to a pair of its method and params.

    `at` is the time that was asked for; up to 15 minutes ahead it is sent at once, with a `delay_seconds`.
    """

    method: str
    params: dict[str, Any] | list[Any]
    context: dict[str, str]
    id: str
    delay_seconds: int | None
    at: datetime | None
    group: str | None
    queue_url: str
    body: str

    def __eq__(self, other: object) -> bool:
        """Compare what a test is about."""
        if isinstance(other, tuple):
            return (self.method, self.params) == other
        return isinstance(other, Enqueued) and (self.id, self.body) == (other.id, other.body)

    def __hash__(self) -> int:
        """Hash by the id, which no two have."""
        return hash(self.id)

    def is_scheduled(self) -> bool:
        """Tell whether it would be a schedule, which can be cancelled, and no message yet."""
        return self.at is not None and self.delay_seconds is None

    def is_for_later(self) -> bool:
        """Tell whether it would run only later."""
        return bool(self.delay_seconds) or self.is_scheduled()


class Jobs(list[Enqueued]):
    """What was enqueued, in order."""

    def run(self, *, delayed: bool = False, around: str | None = None) -> None:
        """Run them here, in order, with what they enqueue in turn; each leaves the list. What one raises, this raises.

        As a worker would: decoded, looked up, bound, called inside `around`, by default JOBRUNNER_AROUND's.
        Those with a delay, or for a later time, stay unless `delayed`. Raises RuntimeError for jobs that enqueue
        each other without end.
        """
        reference = around or os.environ.get("JOBRUNNER_AROUND")
        entered = load_around(reference)
        with _collecting_into(self):
            for _ in range(RUNS_MAX):
                job = next((job for job in self if delayed or not job.is_for_later()), None)
                if job is None:
                    return
                self.remove(job)
                inline.run(job.body, around=entered)
        raise RuntimeError(f"{RUNS_MAX} jobs ran, and there are more: do they enqueue each other without end?")


@contextmanager
def enqueued() -> Iterator[Jobs]:
    """Collect what `enqueue` and its kin are told, in all threads; all is checked as if it were sent.

    Within another one the inner collects. `cancel` takes a job from the list.
    """
    jobs = Jobs()
    with _collecting_into(jobs):
        yield jobs


class _Collecting:
    """Who collects now: the one that began last, whichever of them ends first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: list[Jobs] = []
        self._ways_back = ExitStack()

    def begin(self, jobs: Jobs) -> None:
        """Collect into this list from now on."""
        with self._lock:
            if not self._lists:
                self._name_a_queue()
                self._ways_back.enter_context(patch.object(delivery, "deliver", self._collect))
                self._ways_back.enter_context(patch.object(later, "take_back", self._take_back))
            self._lists.append(jobs)

    def _name_a_queue(self) -> None:
        if had := os.environ.get(QUEUE_URL):
            return
        os.environ[QUEUE_URL] = NOWHERE
        if had is None:
            self._ways_back.callback(os.environ.pop, QUEUE_URL, None)
        else:
            self._ways_back.callback(os.environ.update, {QUEUE_URL: had})

    def end(self, jobs: Jobs) -> None:
        """Do so no more."""
        with self._lock:
            last = max(index for index, each in enumerate(self._lists) if each is jobs)
            del self._lists[last]
            if not self._lists:
                self._ways_back.close()

    def _collect(self, url: str, messages: list[tuple[str, str]], how: How) -> list[delivery.Sent]:
        jobs = self._lists[-1]
        for job_id, body in messages:
            call = decode(body)
            jobs.append(
                Enqueued(
                    method=call.method,
                    params=call.params,
                    context=call.context,
                    id=job_id,
                    delay_seconds=how.delay_seconds,
                    at=datetime.fromisoformat(call.scheduled_at) if call.scheduled_at else None,
                    group=how.group,
                    queue_url=url,
                    body=body,
                )
            )
        return []

    def _take_back(self, _url: str, job_id: str) -> bool:
        found = [(jobs, job) for jobs in self._lists for job in jobs if job.id == job_id and job.is_scheduled()]
        for jobs, job in found:
            jobs.remove(job)
        return bool(found)


@lru_cache(maxsize=1)
def _collecting() -> _Collecting:
    return _Collecting()


@contextmanager
def _collecting_into(jobs: Jobs) -> Iterator[None]:
    _collecting().begin(jobs)
    try:
        yield
    finally:
        _collecting().end(jobs)
