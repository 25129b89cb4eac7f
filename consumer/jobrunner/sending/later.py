"""Jobs for later than SQS's 15 minutes, and taking them back; on the web app's threads."""

import os
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

from jobrunner.errors import (
    AccessDenied,
    LastingQueueError,
    MalformedMessage,
    QueueError,
    RequestRefused,
    SettingsError,
)
from jobrunner.message import SCHEDULE_NAME
from jobrunner.queue.schedules import INPUT_BYTES_MAX, Place, Schedules, input_of
from jobrunner.sending import budget, inline
from jobrunner.settings import check_queue_url

Result = TypeVar("Result")
TRIES = 2


def check(job_id: str, body: str, *, group: str | None, queue_url: str) -> None:
    """Raise SettingsError or MalformedMessage for what cannot be a schedule."""
    if not SCHEDULE_NAME.fullmatch(job_id):
        raise SettingsError(
            f"id is {job_id!r:.100}: for a job later than 15 minutes it names a schedule of EventBridge Scheduler, "
            "so give 1 to 64 letters, digits, -, _ and ."
        )
    size = len(input_of(queue_url, body, group))
    if size > INPUT_BYTES_MAX:
        raise MalformedMessage(
            f"the message has {size:,} bytes, and EventBridge Scheduler takes {INPUT_BYTES_MAX:,}: "
            "put the data where jobs can fetch it and send its key"
        )


def schedule(queue_url: str, job_id: str, body: str, at: datetime, *, group: str | None, seconds: float) -> None:
    """Have a body sent at a time, never early, within so many seconds; raises SettingsError or QueueError.

    After an error of which Scheduler knows nothing, the same id may be tried again: it is made once.
    """
    _tried(lambda _: _schedules(queue_url, seconds).create(job_id, body, at, group=group))


def cancel(id: str, *, queue_url: str | None = None) -> bool:  # noqa: A002 - as `enqueue` calls it
    """Take back a job that `enqueue(..., at=)` put off for later than 15 minutes; True if it was taken back.

    False if it is on the queue already, is done, or was never put off: SQS takes no message back. Scheduler
    forgets a job some seconds after it has sent it; within those it may say True. Raises SettingsError or QueueError.
    """
    url = queue_url or os.environ.get("JOBRUNNER_QUEUE_URL", "")
    if url != inline.URL:
        check_queue_url(url)
    return bool(SCHEDULE_NAME.fullmatch(id)) and take_back(url, id)


def take_back(queue_url: str, job_id: str) -> bool:
    """Delete a schedule; True if it was there."""
    if queue_url == inline.URL:
        return False
    seconds = budget.told()
    # Where the first try was not answered and a second one finds nothing, the first has done it.
    return _tried(lambda number: _schedules(queue_url, seconds).delete(job_id) or number > 0)


def _tried(ask: Callable[[int], Result]) -> Result:
    """Ask, and once more if no answer comes."""
    for number in range(TRIES - 1):
        try:
            return ask(number)
        except (RequestRefused, LastingQueueError) as error:
            if isinstance(error, AccessDenied):
                _made.cache_clear()  # a client that was made without credentials never looks for them again
            raise
        except QueueError:
            continue
    return ask(TRIES - 1)


def _schedules(queue_url: str, seconds: float) -> Schedules:
    return _made(queue_url, Place.told(os.environ), seconds, os.getpid())


@lru_cache(maxsize=16)
def _made(queue_url: str, place: Place, seconds: float, _pid: int) -> Schedules:
    return Schedules(
        place=place,
        queue_url=queue_url,
        read_seconds=seconds * budget.READ_SHARE,
        connect_seconds=seconds * budget.CONNECT_SHARE,
    )
