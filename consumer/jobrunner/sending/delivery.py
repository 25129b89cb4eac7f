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
    seconds = budget.told()
    patience = budget.Patience(seconds)

    def send(left: list[int]) -> dict[int, sqs.Refusal]:
        wanted = [bodies[index] for index in left]
        return _queue(url, seconds, os.getpid()).send(wanted, delay_seconds=how.delay_seconds, group=how.group)

    return _in_parallel(lambda batch: _send_batch(send, batch, patience), sqs.batches([len(body) for body in bodies]))


def _schedule_all(url: str, messages: list[tuple[str, str]], at: datetime, group: str | None) -> list[Sent]:
    """Make one after another; once one was not answered, all others share the budget."""
    results: list[Sent] = []
    seconds = budget.told()
    patience = budget.Patience(seconds)
    for index, message in enumerate(messages):
        if patience.is_over():
            return [*results, (list(range(index, len(messages))), [], patience.error)]
        began_at = time.monotonic()
        results.append(_schedule(url, index, message, at, group, seconds))
        if error := results[-1][2]:
            patience.failed(error, began_at=began_at)
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


def _send_batch(
    send: Callable[[list[int]], dict[int, sqs.Refusal]], batch: list[int], patience: budget.Patience
) -> Sent:
    """Send one batch, and again what failed by SQS's own fault, while the call has patience."""
    left, unknown = batch, False
    refused: list[int] = []
    error: QueueError | None = None
    for number in range(TRIES):
        if patience.is_over():
            break
        if number:
            time.sleep(PAUSE_SECONDS * random.uniform(0.5, 1) * 2**number)
        began_at = time.monotonic()
        try:
            refusals = send(left)
        except (RequestRefused, LastingQueueError) as given:  # SQS says no outright
            if isinstance(given, AccessDenied):
                _queue.cache_clear()  # a client that was made without credentials never looks for them again
            return (refused, left, given) if unknown else (refused + left, [], given)
        except QueueError as given:
            error, unknown = given, True  # a try whose answer was lost may have put them there
            patience.failed(error, began_at=began_at)
            continue
        if not refusals:
            return refused, [], error
        error = RequestRefused(str(next(iter(refusals.values()))))
        patience.failed(error, began_at=began_at)
        refused += [left[position] for position, refusal in refusals.items() if refusal.sender_fault]
        left = [left[position] for position, refusal in refusals.items() if not refusal.sender_fault]
        if not left:
            break
    error = error or patience.error
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
