"""Puts calls on the queue; runs on the web app's threads, in processes that may have forked."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from jobrunner.errors import EnqueueError, JobrunnerError, MalformedMessage, QueueError, SettingsError
from jobrunner.message import Call, encode
from jobrunner.sending import delivery, inline, later
from jobrunner.sending.calls import PreparedCall
from jobrunner.sending.how import How
from jobrunner.sending.writing import Method, Params, call_of, pair
from jobrunner.settings import check_queue_url
from jobrunner.telemetry import spans

#: So many schedules are made for one call of `enqueue_many`.
LATER_MAX = 100


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
    how = How.checked(delay_seconds=delay_seconds, at=at, group=group)
    return prepared(call_of(method, params, context, job_id=id, at=at), how, queue_url=queue_url)()


def prepared(call: Call, how: How, *, queue_url: str | None = None) -> Callable[[], str]:
    """Check all that can be checked without SQS, and give what sends it: for after the commit."""
    job_id, body, url = str(call.id), encode(call), _queue_url(queue_url)
    if how.later_at:
        later.check(job_id, body, group=how.group, queue_url=url)

    def send() -> str:
        try:
            with _traced(url, [call]) as (traced,):
                _send_one(job_id, _with_trace(traced, call, body, how, url), how, url)
        except QueueError as error:
            error.job_id = job_id
            raise
        return job_id

    return send


def send_body(body: str, *, queue_url: str | None = None, group: str | None = None) -> None:
    """Send an encoded call; raises as `enqueue` does."""
    _send_one("", body, How(group=group), queue_url)


def _send_one(job_id: str, body: str, how: How, queue_url: str | None) -> None:
    results = delivery.deliver(_queue_url(queue_url), [(job_id, body)], how)
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
    if not isinstance(calls, Iterable) or isinstance(calls, str | Mapping):
        raise SettingsError(f"calls is {calls!r:.100}: give pairs of method and params, such as [('orders.ship', [7])]")
    prepared = [_numbered(index, call, context, at) for index, call in enumerate(calls)]
    if how.later_at and len(prepared) > LATER_MAX:
        raise SettingsError(
            f"{len(prepared)} jobs for {at}: each is a schedule of its own, so give {LATER_MAX} at most, "
            "or enqueue one job for then that enqueues the others"
        )
    bodies = [encode(call) for call in prepared]
    ids = [str(call.id) for call in prepared]
    for job_id, body in zip(ids, bodies, strict=True) if how.later_at else ():
        later.check(job_id, body, group=how.group, queue_url=url)
    with _traced(url, prepared) as traced:
        sent = [_with_trace(*each, how, url) for each in zip(traced, prepared, bodies, strict=True)]
        _check_sent(ids, delivery.deliver(url, list(zip(ids, sent, strict=True)), how))
    return ids


def _numbered(index: int, call: Any, context: Mapping[str, object] | None, at: datetime | None) -> Call:
    method, params = pair(index, call)
    try:
        return call_of(method, params, context, at=at)
    except JobrunnerError as error:
        error.args = (f"calls[{index}]: {error}",)
        raise


def _traced(url: str, calls: list[Call]) -> AbstractContextManager[Sequence[Call]]:
    """Be within the span of a send, where the app uses OpenTelemetry: the calls then carry its context."""
    found = _spans(url) if calls and spans.is_used() else None
    return found.sending(calls) if found else nullcontext(calls)


@lru_cache(maxsize=16)
def _spans(url: str) -> spans.Spans | None:
    return spans.Spans.made(url, "link", logging.getLogger("jobrunner").warning)


def _with_trace(traced: Call, call: Call, body: str, how: How, url: str) -> str:
    """Encode what carries a trace; where that would be too long, what was checked before goes without it."""
    if traced is call:
        return body
    with suppress(MalformedMessage):
        longer = encode(traced)
        if how.later_at:
            later.check(str(call.id), longer, group=how.group, queue_url=url)
        return longer
    return body


def _check_sent(ids: list[str], results: list[delivery.Sent]) -> None:
    """Raise EnqueueError unless all were sent."""
    not_sent = [index for result in results for index in result[0]]
    unknown = [index for result in results for index in result[1]]
    if not_sent or unknown:
        failed = {*not_sent, *unknown}
        reason = next(result[2] for result in results if result[2])
        jobs = "job" if len(ids) == 1 else "jobs"
        raise EnqueueError(
            f"of {len(ids)} {jobs} {len(not_sent)} were not sent, {len(unknown)} may have been: {reason}",
            sent=[index for index in range(len(ids)) if index not in failed],
            not_sent=not_sent,
            unknown=unknown,
            ids=ids,
        )


def _queue_url(given: str | None) -> str:
    url = given or os.environ.get("JOBRUNNER_QUEUE_URL", "")
    if not isinstance(url, str):
        raise SettingsError(f"queue_url is {url!r:.100}: give a queue's URL, a text")
    if url != inline.URL:
        check_queue_url(url)
    return url
