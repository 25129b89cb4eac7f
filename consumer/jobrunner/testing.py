"""For an app's tests: what the code under test enqueues, collected and not sent; any thread, any event loop.

with enqueued() as jobs:
    client.post("/orders/7")
assert jobs == [("orders.ship", {"number": 7})]
jobs.run()
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from unittest.mock import patch

from jobrunner.app.loading import load_around
from jobrunner.message import decode
from jobrunner.sending import delivery, inline
from jobrunner.sending.how import How

__all__ = ["Enqueued", "Jobs", "enqueued"]
RUNS_MAX = 10_000
#: The queue of what is collected, where none is named.
NOWHERE = "https://sqs.us-east-1.amazonaws.com/000000000000/enqueued"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """One job as it would have been sent; equal to another, or to a pair of its method and params."""

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
        for _ in range(RUNS_MAX):
            job = next((job for job in self if delayed or not (job.delay_seconds or job.at)), None)
            if job is None:
                return
            self.remove(job)
            inline.run(job.body, around=entered)
        raise RuntimeError(f"{RUNS_MAX} jobs ran, and there are more: do they enqueue each other without end?")


@contextmanager
def enqueued() -> Iterator[Jobs]:
    """Collect what `enqueue` and its kin are told, in all threads; all is checked as if it were sent."""
    jobs = Jobs()

    def collect(url: str, messages: list[tuple[str, str]], how: How) -> list[delivery.Sent]:
        for job_id, body in messages:
            call = decode(body)
            jobs.append(
                Enqueued(
                    method=call.method,
                    params=call.params,
                    context=call.context,
                    id=job_id,
                    delay_seconds=how.delay_seconds,
                    at=how.later_at,
                    group=how.group,
                    queue_url=url,
                    body=body,
                )
            )
        return []

    had = os.environ.get("JOBRUNNER_QUEUE_URL")
    os.environ["JOBRUNNER_QUEUE_URL"] = had or NOWHERE
    try:
        with patch.object(delivery, "deliver", collect):
            yield jobs
    finally:
        os.environ["JOBRUNNER_QUEUE_URL"] = had or ""
        if had is None:
            del os.environ["JOBRUNNER_QUEUE_URL"]
