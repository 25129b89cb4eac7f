"""One delivery from start to outcome, as a plain function."""

import contextvars
import gc
import os
import time
import weakref
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import structlog

from jobrunner.app.around import Around
from jobrunner.app.calling import Caller
from jobrunner.app.catalog import Catalog, Job
from jobrunner.current import current_job
from jobrunner.errors import NoCurrentJob
from jobrunner.message import Call, Delivery, encode
from jobrunner.worker.execution import Execution


@pytest.fixture
def run(log, metrics):
    """Run a function as a job would be: gives the outcome's name."""

    def run(function, params=None, *, around=None, body=None, attempt=1, result_of=None, says_all=False, **call):
        catalog = Catalog(module="jobs", jobs={"job": Job.of("job", function)}, left_out={})
        around = Around(around, name="web:app") if around else None
        caller = Caller(around=around, coroutines=SimpleNamespace(result_of=result_of))
        execution = Execution(
            catalog=catalog,
            caller=caller,
            attempts_max=5,
            is_stopping=lambda: False,
            says_all=says_all,
            metrics=metrics,
            log=log,
        )
        run.again = lambda: execution.run(execution.prepare(delivery))
        text = body or encode(Call(method="job", params=params or {}, **call))
        delivery = Delivery(message_id="m-1", receipt_handle="h", body=text, attempt=attempt, sent_at=time.time() - 2)
        return execution.run(execution.prepare(delivery))

    return run


def test_a_job_that_returns_is_done_and_deleted(run, events):
    outcome = run(lambda a: None, {"a": 1})
    assert (outcome.name, outcome.deletes) == ("done", True)
    assert events.one("job.done")["queue_ms"] >= 2000


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


class Unnotable(Exception):
    @property
    def __notes__(self):
        raise SystemExit("no notes")


@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit, Unspeakable, Unnotable]
)
def test_whatever_it_raises_is_a_failure_with_backoff(run, events, error):
    def job():
        raise error

    outcome = run(job, attempt=3)
    assert outcome.name == "failed"
    assert 15 <= outcome.release_seconds <= 20
    line = events.one("job.failed")
    assert error.__name__ in line["exception"]
    assert (line["attempts_max"], line["retry_seconds"]) == (5, outcome.release_seconds)


def test_endless_recursion_is_a_failure(run):
    def job():
        job()

    assert run(job).name == "failed"


@pytest.mark.parametrize(("says_all", "said"), [(False, 1), (True, 4)])
def test_an_unknown_method_waits_for_its_deploy_and_is_logged_once(log, metrics, events, says_all, said):
    execution = Execution(
        catalog=Catalog(module="jobs", jobs={}, left_out={}),
        caller=Caller(around=None, coroutines=None),
        attempts_max=None,
        is_stopping=lambda: False,
        says_all=says_all,
        metrics=metrics,
        log=log,
    )
    for index in range(5):
        body = encode(Call(method="not.here" if index else "other"))
        delivery = Delivery(message_id="m", receipt_handle="h", body=body, attempt=1, sent_at=0)
        outcome = execution.run(execution.prepare(delivery))
        assert outcome.name == "unknown_method"
        assert 22 <= outcome.release_seconds <= 30
    assert [line["method"] for line in events.named("job.unknown_method")] == ["other", *["not.here"] * said]


def test_a_malformed_body_and_bad_params_never_reach_the_function(run, events):
    def job(a):
        raise AssertionError("called")

    assert run(job, body="{").name == "malformed"
    assert run(job, {"b": 1}).name == "bad_params"
    assert "missing a required argument: 'a'" in events.one("job.bad_params")["error"]
    assert events.one("job.malformed")["message_id"] == "m-1"


def test_a_type_error_inside_the_job_is_its_own_failure(run):
    assert run(lambda: len(None)).name == "failed"


def test_around_is_entered_and_left_around_each_job(run):
    seen = []

    @contextmanager
    def around():
        seen.append("in")
        yield
        seen.append("out")

    assert run(lambda: seen.append("job"), around=around).name == "done"
    assert seen == ["in", "job", "out"]


def test_around_that_swallows_the_error_does_not_make_it_a_success(run, events):
    assert run(lambda: 1 / 0, around=lambda: suppress(ZeroDivisionError)).name == "failed"
    assert "swallowed" in events.one("job.failed")["exception"]


def test_around_that_fails_after_the_job_is_a_failure(run):
    @contextmanager
    def around():
        yield
        raise RuntimeError("commit failed")

    assert run(lambda: None, around=around).name == "failed"


def test_a_returned_generator_is_a_failure_since_nothing_ran(run, events):
    assert run(lambda: (n for n in [1])).name == "failed"
    assert "returned a generator" in events.one("job.failed")["exception"]


def test_any_awaitable_result_is_awaited(run):
    async def work():
        """Do nothing."""

    awaited = []

    def result_of(awaitable):
        awaited.append(awaitable)
        awaitable.close()

    assert run(lambda: work(), result_of=result_of).name == "done"  # noqa: PLW0108
    assert len(awaited) == 1


def test_current_job_is_known_inside_and_only_inside(run):
    seen = []
    run(lambda: seen.append(current_job()), id="k-7", context={"request_id": "r"}, attempt=2)
    (job,) = seen
    assert (job.id, job.message_id, job.method, job.attempt) == ("k-7", "m-1", "job", 2)
    assert job.context == {"request_id": "r"}
    assert datetime.now(UTC) - job.sent_at < timedelta(seconds=10)
    with pytest.raises(NoCurrentJob, match="outside a job.*by jobrunner.testing.*JOBRUNNER_QUEUE_URL=inline:"):
        current_job()


def test_without_an_id_in_the_body_the_message_id_is_the_key(run):
    seen = []
    run(lambda: seen.append(current_job().id))
    assert seen == ["m-1"]


def test_a_cron_past_its_age_is_dropped_and_said(run, events):
    late = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    outcome = run(lambda: 1 / 0, scheduled_at=late, max_age_seconds=3600)
    assert (outcome.name, outcome.deletes) == ("expired", True)
    assert events.one("job.expired")["max_age_seconds"] == 3600
    assert run(lambda: None, scheduled_at=late, max_age_seconds=9000).name == "done"
    assert run(lambda: 1 / 0, max_age_seconds=1).name == "expired", "without scheduled_at the sending counts"


def test_a_forked_child_that_comes_back_ends_without_a_say(run, events):
    pipe_read, pipe_write = os.pipe()

    def job():
        if os.fork() == 0:
            os.write(pipe_write, b"child was here")

    assert run(job).name == "done"
    assert os.read(pipe_read, 100) == b"child was here"
    assert os.waitpid(-1, 0)[1] == 0
    assert len(events.named("job.done")) == 1


def test_what_a_failed_job_held_is_given_back_at_once(run):
    """Without the collector: it seldom looks at what is old."""

    class Held:
        pass

    alive = []

    def fails(depth=3):
        held = Held()
        alive.append(weakref.ref(held))
        if depth:
            fails(depth - 1)
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError(2) from error

    def groups():
        try:
            fails()
        except ValueError as error:
            raise ExceptionGroup("several", [error]) from None

    gc.disable()
    try:
        for function in (fails, groups):
            assert run(function).name == "failed"
            assert [ref() for ref in alive] == [None] * len(alive)
    finally:
        gc.enable()


def test_what_a_job_puts_into_context_variables_is_not_the_next_ones(run):
    tenant = contextvars.ContextVar("tenant", default=None)
    seen = []

    def job():
        seen.append(tenant.get())
        tenant.set("acme")
        structlog.contextvars.bind_contextvars(tenant="acme")
        seen.append(structlog.contextvars.get_contextvars())

    run(job)
    run(job)
    assert seen == [None, {"tenant": "acme"}] * 2
    assert (tenant.get(), structlog.contextvars.get_contextvars()) == (None, {})


def test_an_awaitable_that_gives_an_awaitable_is_awaited_too(run):
    seen = []

    async def inner():
        seen.append("ran")

    async def outer():
        return inner()

    def result_of(awaitable):
        try:
            awaitable.send(None)
        except StopIteration as stop:
            return stop.value

    assert run(outer, result_of=result_of).name == "done"
    assert seen == ["ran"]


class Slow(Exception):
    @property
    def retry_seconds(self):
        return 90.5


class Final(Exception):
    retry_seconds = None


class Hostile(Exception):
    def __getattribute__(self, name):
        raise SystemExit(name)


@pytest.mark.parametrize(
    ("kind", "seconds", "reason"),
    [(Slow, [91], False), (Final, [4, 5], True), (Hostile, [4, 5], False), (ValueError, [4, 5], False)],
)
def test_an_exception_may_say_when_its_job_is_tried_again(run, kind, seconds, reason):
    def job():
        raise kind

    ended = run(job)
    assert (ended.name, ended.release_seconds in seconds, bool(ended.reason)) == ("failed", True, reason)


def test_a_wish_of_any_size_is_cut_to_what_sqs_takes(run):
    def job():
        raise type("Kind", (Exception,), {"retry_seconds": 10**400})

    assert run(job).release_seconds == 43_200


@pytest.mark.parametrize("value", [float("nan"), "3600", True, object()])
def test_a_wish_that_means_nothing_is_named_and_it_is_a_failure_like_any(run, events, value):
    def job():
        raise type("Kind", (Exception,), {"retry_seconds": value})

    assert run(job).release_seconds in (4, 5)
    assert "not a number of seconds or None" in events.one("job.failed")["retry_seconds_ignored"]


def test_where_around_gives_no_context_manager_jobs_are_kept_for_the_next_start(run, events):
    for _ in range(3):
        ended = run(lambda: None, around=lambda: 5)
        assert (ended.name, 22 <= ended.release_seconds <= 30) == ("around_broken", True)
    line, *_ = events.named("around.broken")
    assert line["error"].startswith("--around 'web:app' gave 5, which is no context manager, so the job did not run")


def test_an_around_that_is_wrong_is_said_once_also_where_somebody_looks_on(run, events):
    """Each job meets the same one; an unknown method is another each time."""
    run(lambda: None, around=lambda: 5, says_all=True)
    run.again()
    assert len(events.named("around.broken")) == 1
