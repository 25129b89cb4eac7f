"""Carries calls out: to SQS within a budget, to Scheduler, or inline; any thread, in processes that may have forked."""

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import lru_cache

from jobrunner.errors import AccessDenied, LastingQueueError, QueueError, RequestRefused
from jobrunner.queue import requests as sqs
from jobrunner.queue.endpoint import Endpoint
from jobrunner.sending import budget, inline, later
from jobrunner.sending.how import How

#: Positions that were not sent and those of which nothing is known, and why.
Sent = tuple[list[int], list[int], QueueError | None]
DELIVERED: Sent = ([], [], None)

TRIES, PAUSE_SECONDS = 3, 0.1
#: Batches of `enqueue_many` under way at once.
PARALLEL = 8


def deliver(url: str, messages: list[tuple[str, str]], how: How) -> list[Sent]:
    """Carry calls out, given by id and body: to SQS in parallel batches, to Scheduler, or inline, in order."""
    if url == inline.URL:
        for _, body in messages if how.later_at is None else ():
            inline.run(body)
        return []
    if how.later_at:
        return _schedule_all(url, messages, how.later_at, how.group)
    bodies = [body for _, body in messages]

    def send(batch: list[int]) -> Sent:
        return _send_batch(url, bodies, batch, delay_seconds=how.delay_seconds, group=how.group)

    return _in_parallel(send, sqs.batches([len(body) for body in bodies]))


def _schedule_all(url: str, messages: list[tuple[str, str]], at: datetime, group: str | None) -> list[Sent]:
    """Make one after another; once one was not answered, all others share the budget."""
    results: list[Sent] = []
    failed: QueueError | None = None
    seconds = budget.told()
    deadline = time.monotonic() + seconds * budget.LAST_TRY_SHARE
    for index, message in enumerate(messages):
        if failed and time.monotonic() > deadline:
            return [*results, (list(range(index, len(messages))), [], failed)]
        results.append(_schedule(url, index, message, at, group, seconds))
        failed = results[-1][2] or failed
    return results


def _schedule(url: str, index: int, message: tuple[str, str], at: datetime, group: str | None, seconds: float) -> Sent:
    try:
        later.schedule(url, *message, at, group=group, seconds=seconds)
    except (RequestRefused, LastingQueueError) as error:
        return [index], [], error
    except QueueError as error:
        return [], [index], error
    return DELIVERED


def _in_parallel(send: Callable[[list[int]], Sent], batches: list[list[int]]) -> list[Sent]:
    """Send several batches at once; one after another where there can be no threads any more, at the exit."""
    if len(batches) > 1:
        try:
            with ThreadPoolExecutor(PARALLEL, thread_name_prefix="enqueue") as threads:
                return list(threads.map(send, batches))
        except RuntimeError as error:
            if "interpreter shutdown" not in str(error):
                raise
    return [send(batch) for batch in batches]


def _send_batch(url: str, bodies: list[str], batch: list[int], *, delay_seconds: int | None, group: str | None) -> Sent:
    """Send one batch, and again what failed by SQS's own fault, within the budget."""
    left, unknown = batch, False
    refused: list[int] = []
    error: QueueError | None = None
    seconds = budget.told()
    deadline = time.monotonic() + seconds * budget.LAST_TRY_SHARE
    for number in range(TRIES):
        if number and time.monotonic() > deadline:
            break
        if number:
            time.sleep(PAUSE_SECONDS * random.uniform(0.5, 1) * 2**number)
        try:
            refusals = _queue(url, seconds, os.getpid()).send(
                [bodies[index] for index in left], delay_seconds=delay_seconds, group=group
            )
        except (RequestRefused, LastingQueueError) as given:  # SQS says no outright
            if isinstance(given, AccessDenied):
                _queue.cache_clear()  # a client that was made without credentials never looks for them again
            return (refused, left, given) if unknown else (refused + left, [], given)
        except QueueError as given:
            error, unknown = given, True  # a try whose answer was lost may have put them there
            continue
        if not refusals:
            return refused, [], error
        error = RequestRefused(str(next(iter(refusals.values()))))
        refused += [left[position] for position, refusal in refusals.items() if refusal.sender_fault]
        left = [left[position] for position, refusal in refusals.items() if not refusal.sender_fault]
        if not left:
            return refused, [], error
    return (refused, left, error) if unknown else (refused + left, [], error)


@lru_cache(maxsize=16)
def _queue(url: str, seconds: float, _pid: int) -> sqs.Queue:
    # Keyed by process: a TLS connection that two forked processes share garbles both.
    client = Endpoint(url).client(
        read_seconds=seconds * budget.READ_SHARE,
        attempts=1,
        connections=PARALLEL,
        connect_seconds=seconds * budget.CONNECT_SHARE,
    )
    return sqs.Queue(url=url, polling=client, working=client)
