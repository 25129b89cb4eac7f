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
from jobrunner.queue.schedules import INPUT_BYTES_MAX, Place, Schedules
from jobrunner.settings import check_queue_url

Result = TypeVar("Result")
READ_SECONDS, TRIES = 2.0, 2


def schedule(queue_url: str, job_id: str, body: str, at: datetime, *, group: str | None) -> None:
    """Have a body sent at a time, never early; raises MalformedMessage, SettingsError or QueueError.

    After an error of which SQS's side knows nothing, the same id may be tried again: it is made once.
    """
    if not SCHEDULE_NAME.fullmatch(job_id):
        raise SettingsError(
            f"id is {job_id!r:.100}: for a job later than 15 minutes it names a schedule of EventBridge Scheduler, "
            "so give 1 to 64 letters, digits, -, _ and ."
        )
    if len(body) > INPUT_BYTES_MAX:
        raise MalformedMessage(
            f"the message has {len(body):,} bytes, and EventBridge Scheduler takes {INPUT_BYTES_MAX:,}: "
            "put the data where jobs can fetch it and send its key"
        )
    _tried(lambda: _schedules(queue_url).create(job_id, body, at, group=group))


def cancel(id: str, *, queue_url: str | None = None) -> bool:  # noqa: A002 - as `enqueue` calls it
    """Take back a job that `enqueue(..., at=)` put off for later than 15 minutes; True if it will not run.

    False if it is on the queue already, is done, or was never put off: SQS takes no message back.
    Raises SettingsError or QueueError.
    """
    url = queue_url or os.environ.get("JOBRUNNER_QUEUE_URL", "")
    check_queue_url(url)
    if not SCHEDULE_NAME.fullmatch(id):
        return False
    return _tried(lambda: _schedules(url).delete(id))


def _tried(ask: Callable[[], Result]) -> Result:
    for _ in range(TRIES - 1):
        try:
            return ask()
        except (RequestRefused, LastingQueueError) as error:
            if isinstance(error, AccessDenied):
                _made.cache_clear()  # a client that was made without credentials never looks for them again
            raise
        except QueueError:
            continue
    return ask()


def _schedules(queue_url: str) -> Schedules:
    return _made(queue_url, Place.told(os.environ), os.getpid())


@lru_cache(maxsize=16)
def _made(queue_url: str, place: Place, _pid: int) -> Schedules:
    return Schedules(place=place, queue_url=queue_url, read_seconds=READ_SECONDS)
