"""Puts calls on the queue; runs on the web app's threads, in processes that may have forked."""

import logging
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from jobrunner.app import catalog
from jobrunner.errors import (
    AccessDenied,
    EnqueueError,
    LastingQueueError,
    MalformedMessage,
    QueueError,
    RequestRefused,
    SettingsError,
    UnknownMethod,
)
from jobrunner.message import Call, encode
from jobrunner.queue import requests as sqs
from jobrunner.queue.endpoint import Endpoint
from jobrunner.queue.schedules import INPUT_BYTES_MAX
from jobrunner.sending import inline, later
from jobrunner.sending.calls import PreparedCall, check_callable
from jobrunner.sending.how import How
from jobrunner.settings import check_queue_url
from jobrunner.telemetry import spans

Method = str | Callable[..., Any] | PreparedCall
Params = dict[str, Any] | list[Any]
#: Positions that were not sent and those of which nothing is known, and why.
Sent = tuple[list[int], list[int], QueueError | None]
DELIVERED: Sent = ([], [], None)

PAIR = 2
#: So many schedules are made for one call of `enqueue_many`.
LATER_MAX = 100
#: What is written as a text in a job's context.
TEXTS = (str, int, float, uuid.UUID, date, type(None))
#: A web request must not hang on us: all tries of one call together, unless JOBRUNNER_ENQUEUE_SECONDS says otherwise.
BUDGET_SECONDS, BUDGET_SECONDS_MAX = 5.0, 300
#: Of the budget: two tries fit that hang to their end. A name that takes long to resolve is beyond our reach.
CONNECT_SHARE, READ_SHARE = 0.1, 0.4
TRIES, PAUSE_SECONDS = 3, 0.1
#: Batches of `enqueue_many` under way at once.
PARALLEL = 8


def enqueue(
    method: Method,
    params: Params | None = None,
    *,
    delay_seconds: int | timedelta | None = None,
    at: datetime | None = None,
    group: str | None = None,
    context: Mapping[str, object] | None = None,
    id: str | None = None,  # noqa: A002 - what the job sees as current_job().id
    queue_url: str | None = None,
) -> str:
    """Put one job on the queue and return its id, which the job sees as `current_job().id`.

    `method` is a name such as "thumbnails.make", the function itself, or `call(function, ...)`, which has
    its params with it; params that do not fit the function raise BadParams here. `delay_seconds` is 0 to
    900, by default the queue's own; `at` is any time, never early: later than that by EventBridge
    Scheduler, to the minute, until `cancel(id)`. `group` lets SQS share a queue fairly (MessageGroupId).
    `context` is bound to the job's log lines, as text. The queue is `queue_url` or JOBRUNNER_QUEUE_URL;
    `inline:` runs the job at once, here, and one for later not at all.

    Raises MalformedMessage, SettingsError or QueueError; after one that is neither a RequestRefused, a
    QueueNotFound nor an AccessDenied the job may be on the queue all the same. Its `job_id` is the id to
    try again with, `id=`, so that the job can tell the two apart from two jobs.
    """
    call = call_of(method, params, context, job_id=id, at=at)
    return prepared(call, How.checked(delay_seconds=delay_seconds, at=at, group=group), queue_url=queue_url)()


def prepared(call: Call, how: How, *, queue_url: str | None = None) -> Callable[[], str]:
    """Check all that can be checked without SQS, and give what sends it: for after the commit."""
    job_id, body, url = str(call.id), encode(call), _queue_url(queue_url)

    def send() -> str:
        try:
            with _traced(url, [call]) as (traced,):
                _send_one(job_id, _with_trace(traced, call, body, how), how, url)
        except QueueError as error:
            error.job_id = job_id
            raise
        return job_id

    return send


def send_body(body: str, *, queue_url: str | None = None, group: str | None = None) -> None:
    """Send an encoded call; raises as `enqueue` does."""
    _send_one("", body, How(group=group), queue_url)


def _send_one(job_id: str, body: str, how: How, queue_url: str | None) -> None:
    results = deliver(_queue_url(queue_url), [(job_id, body)], how)
    for not_sent, unknown, error in results:
        if error and (not_sent or unknown):
            raise error


def enqueue_many(
    calls: Iterable[tuple[Method, Params | None] | PreparedCall],
    *,
    delay_seconds: int | timedelta | None = None,
    at: datetime | None = None,
    group: str | None = None,
    context: Mapping[str, object] | None = None,
    queue_url: str | None = None,
) -> list[str]:
    """Put many jobs on the queue, ten to a request; returns their ids in order.

    All are checked before the first is sent. With an `at` later than 15 minutes at most 100, one request
    each. Raises EnqueueError, which says exactly which were sent, which were not, and of which nothing is known.
    """
    url = _queue_url(queue_url)
    how = How.checked(delay_seconds=delay_seconds, at=at, group=group)
    prepared = [call_of(*_pair(index, call), context, at=at) for index, call in enumerate(calls)]
    if how.later_at and len(prepared) > LATER_MAX:
        raise SettingsError(
            f"{len(prepared)} jobs for {at}: each is a schedule of its own, so give {LATER_MAX} at most, "
            "or enqueue one job for then that enqueues the others"
        )
    bodies = [encode(call) for call in prepared]
    ids = [str(call.id) for call in prepared]
    with _traced(url, prepared) as traced:
        sent = [_with_trace(*each, how) for each in zip(traced, prepared, bodies, strict=True)]
        _check_sent(ids, deliver(url, list(zip(ids, sent, strict=True)), how))
    return ids


def _traced(url: str, calls: list[Call]) -> AbstractContextManager[Sequence[Call]]:
    """Be within the span of a send, where the app uses OpenTelemetry: the calls then carry its context."""
    found = _spans(url) if calls and spans.is_used() else None
    return found.sending(calls) if found else nullcontext(calls)


@lru_cache(maxsize=16)
def _spans(url: str) -> spans.Spans | None:
    return spans.Spans.made(url, "link", logging.getLogger("jobrunner").warning)


def _with_trace(traced: Call, call: Call, body: str, how: How) -> str:
    """Encode what carries a trace; where that would be too long, what was checked before goes without it."""
    if traced is call:
        return body
    with suppress(MalformedMessage):
        longer = encode(traced)
        if how.later_at is None or len(longer) <= INPUT_BYTES_MAX:
            return longer
    return body


def deliver(url: str, messages: list[tuple[str, str]], how: How) -> list[Sent]:
    """Carry calls out, given by id and body: to SQS in parallel batches, to Scheduler, or inline, in order."""
    if url == inline.URL:
        for _, body in messages if how.later_at is None else ():
            inline.run(body)
        return []
    if how.later_at:
        return [_schedule(url, index, message, how.later_at, how.group) for index, message in enumerate(messages)]
    bodies = [body for _, body in messages]

    def send(batch: list[int]) -> Sent:
        return _send_batch(url, bodies, batch, delay_seconds=how.delay_seconds, group=how.group)

    return _in_parallel(send, sqs.batches([len(body) for body in bodies]))


def _schedule(url: str, index: int, message: tuple[str, str], at: datetime, group: str | None) -> Sent:
    try:
        later.schedule(url, *message, at, group=group)
    except (RequestRefused, LastingQueueError) as error:
        return [index], [], error
    except QueueError as error:
        return [], [index], error
    return DELIVERED


def _check_sent(ids: list[str], results: list[Sent]) -> None:
    """Raise EnqueueError unless all were sent."""
    not_sent = [index for result in results for index in result[0]]
    unknown = [index for result in results for index in result[1]]
    if not_sent or unknown:
        failed = {*not_sent, *unknown}
        reason = next(result[2] for result in results if result[2])
        raise EnqueueError(
            f"{len(not_sent)} of {len(ids)} jobs were not sent, {len(unknown)} may have been: {reason}",
            sent=[index for index in range(len(ids)) if index not in failed],
            not_sent=not_sent,
            unknown=unknown,
            ids=ids,
        )


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
    budget = budget_seconds()
    deadline = time.monotonic() + budget * (1 - CONNECT_SHARE - READ_SHARE)
    for number in range(TRIES):
        if number and time.monotonic() > deadline:
            break
        if number:
            time.sleep(PAUSE_SECONDS * random.uniform(0.5, 1) * 2**number)
        try:
            refusals = _queue(url, budget, os.getpid()).send(
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


def _pair(index: int, call: Any) -> tuple[Method, Params | None]:
    if isinstance(call, PreparedCall):
        return call, None
    if isinstance(call, tuple | list) and len(call) == PAIR:
        return call[0], call[1]
    raise SettingsError(f"calls[{index}] is {call!r:.100}, not a pair of method and params")


def call_of(
    method: Method,
    params: Params | None,
    context: Mapping[str, object] | None = None,
    *,
    job_id: str | None = None,
    at: datetime | None = None,
) -> Call:
    """Write a call down as a message will have it, its params bound where the function is here."""
    if isinstance(method, PreparedCall):
        if params is not None:
            raise SettingsError(f"params are given twice: in call(...) and as {params!r:.100}")
        return call_of(method.function, method.params, context, job_id=job_id, at=at)
    arguments = {} if params is None else params
    if not isinstance(method, str):
        method = _name_of(method, arguments)
    return Call(
        method=method,
        params=arguments,
        context=_context(context or {}),
        id=job_id or str(uuid.uuid4()),
        scheduled_at=at.astimezone(UTC).isoformat() if isinstance(at, datetime) else None,
    )


def _context(given: Mapping[str, Any]) -> dict[str, str]:
    """Give a context of texts: what logging contexts hold as a matter of course is written as one."""
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, TEXTS):
            raise MalformedMessage(f"context[{key!r}] is {value!r:.100}: context holds texts, so make it str(...)")
    return {key: str(value) for key, value in given.items()}


def _name_of(function: Callable[..., Any], params: Params) -> str:
    """Derive a function's method name, and bind the params to it while the caller can still mend them."""
    check_callable(function)
    module = os.environ.get("JOBRUNNER_MODULE", "jobs")
    home = getattr(function, "__module__", None) or ""
    name = _name_in(home, function)
    if home != module and not home.startswith(f"{module}."):
        raise UnknownMethod(
            f"{home}.{name} is outside the jobs module {module!r}, so no worker will find it: "
            "move it there, or set JOBRUNNER_MODULE"
        )
    method = f"{home}.{name}"[len(module) + 1 :]
    catalog.Job.of(method, function).bind(params)
    return method


def _name_in(home: str, function: Callable[..., Any]) -> str:
    """Give the name under which its module has it, as a worker's catalog does: a lambda has no other."""
    members = vars(sys.modules[home]) if home in sys.modules else {}
    own = getattr(function, "__qualname__", "")
    if members.get(own) is function:
        return own
    return next((name for name, value in members.items() if value is function and name[0] != "_"), own)


def _queue_url(given: str | None) -> str:
    url = given or os.environ.get("JOBRUNNER_QUEUE_URL", "")
    if url != inline.URL:
        check_queue_url(url)
    return url


def budget_seconds() -> float:
    """Say how long all tries of one call may take together; raises SettingsError."""
    given = os.environ.get("JOBRUNNER_ENQUEUE_SECONDS", "")
    try:
        seconds = float(given or BUDGET_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= BUDGET_SECONDS_MAX:
        raise SettingsError(f"JOBRUNNER_ENQUEUE_SECONDS is {given!r}, not a number up to {BUDGET_SECONDS_MAX}")
    return seconds


@lru_cache(maxsize=16)
def _queue(url: str, budget_seconds: float, _pid: int) -> sqs.Queue:
    # Keyed by process: a TLS connection that two forked processes share garbles both.
    client = Endpoint(url).client(
        read_seconds=budget_seconds * READ_SHARE,
        attempts=1,
        connections=PARALLEL,
        connect_seconds=budget_seconds * CONNECT_SHARE,
    )
    return sqs.Queue(url=url, polling=client, working=client)
