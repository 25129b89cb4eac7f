"""`jobrunner.testing`: collected, compared, run; from threads, from event loops, by every form of `enqueue`."""

import asyncio
import contextlib
import os
import sys
import threading
import time
import types
from datetime import UTC, datetime, timedelta

import pytest

from jobrunner import (
    BadParams,
    MalformedMessage,
    QueueError,
    RequestRefused,
    SettingsError,
    aenqueue,
    aenqueue_many,
    call,
    cancel,
    current_job,
    enqueue,
    enqueue_many,
)
from jobrunner.sending import asynchronous, delivery, inline
from jobrunner.testing import enqueued


@pytest.fixture
def ran(monkeypatch):
    """A module of jobs; gives what they did."""
    done = []
    module = types.ModuleType("jobs")

    def ship(number, *, fast=False):
        done.append(("ship", number, fast, current_job().method))
        enqueue("thank", [number], delay_seconds=60)

    def thank(number):
        done.append(("thank", number))

    def odd(first, /, *rest, **more):
        done.append((first, rest, more))

    async def later(word):
        done.append(word)

    for function in (ship, thank, odd, later):
        function.__module__, function.__qualname__ = "jobs", function.__name__
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "jobs", module)
    inline._catalog.cache_clear()
    yield types.SimpleNamespace(done=done, **vars(module))
    inline._catalog.cache_clear()


def test_what_is_enqueued_is_collected_in_order_and_comparable(ran):
    with enqueued() as jobs:
        job_id = enqueue(ran.ship, {"number": 7}, delay_seconds=5, group="g", context={"a": 1})
        enqueue_many([("thank", [1]), call(ran.thank, 2)])
    assert jobs == [("ship", {"number": 7}), ("thank", [1]), ("thank", {"number": 2})]
    first = jobs[0]
    assert (first.id, first.delay_seconds, first.group, first.context) == (job_id, 5, "g", {"a": "1"})
    assert jobs != [("ship", {"number": 8})]
    assert ran.done == []


def test_all_is_checked_as_if_it_were_sent(ran):
    with enqueued() as jobs:
        for wrong in ({"params": {"nr": 7}}, {"params": [1, 2]}):
            with pytest.raises(BadParams):
                enqueue(ran.ship, **wrong)
        with pytest.raises(MalformedMessage):
            enqueue("thank", {"number": {1}})
        with pytest.raises(SettingsError):
            enqueue("thank", delay_seconds=901)
    assert jobs == []


def test_they_run_in_order_with_what_they_enqueue_and_those_with_a_delay_when_asked(ran):
    with enqueued() as jobs:
        enqueue(ran.ship, {"number": 7})
        jobs.run()
        assert jobs == [("thank", [7])]
        jobs.run(delayed=True)
    assert ran.done == [("ship", 7, False, "ship"), ("thank", 7)]
    assert jobs == []


def test_they_run_inside_what_is_around(ran, monkeypatch):
    module = types.ModuleType("around_of_a_test")

    @contextlib.contextmanager
    def around():
        ran.done.append("in")
        yield
        ran.done.append("out")

    module.around = around
    monkeypatch.setitem(sys.modules, "around_of_a_test", module)
    with enqueued() as jobs:
        enqueue("thank", [1])
        jobs.run(around="around_of_a_test:around")
    assert ran.done == ["in", ("thank", 1), "out"]


def test_other_threads_and_event_loops_are_collected_too(ran):
    async def web():
        await aenqueue(ran.thank, [1])
        await asyncio.gather(*(aenqueue("thank", [number]) for number in range(20)))
        return await aenqueue_many([("later", ["x"])])

    with enqueued() as jobs:
        thread = threading.Thread(target=enqueue, args=("thank", [0]))
        thread.start()
        thread.join()
        ids = asyncio.run(web())
        assert len(jobs) == 23
        assert jobs[-1].id == ids[0]
        jobs.run()
    assert ran.done[-1] == "x"


def test_a_cancelled_aenqueue_leaves_the_loop_and_its_threads_in_order(ran):
    async def web():
        waiting = [asyncio.ensure_future(aenqueue("thank", [number])) for number in range(50)]
        await asyncio.sleep(0)
        for future in waiting:
            future.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        return await aenqueue("thank", ["after"])

    with enqueued() as jobs:
        asyncio.run(web())
        asynchronous._senders(os.getpid())._threads.shutdown()  # what goes on there would be the next test's
        asynchronous._senders.cache_clear()
    assert [job for job in jobs if job == ("thank", ["after"])], "the others may be there or not"


@pytest.fixture
def senders():
    asynchronous._senders.cache_clear()
    yield
    asynchronous._senders.cache_clear()


def test_a_burst_that_takes_longer_than_the_budget_goes_out_while_it_moves(monkeypatch, senders):
    """Only where none gets on is it an SQS that is slow: then each error has its id, also one that was chosen."""
    monkeypatch.setenv("JOBRUNNER_ENQUEUE_SECONDS", "0.2")

    def deliver(_url, _messages, _how):
        time.sleep(0.3 if hangs else 0.02)
        if hangs:
            raise QueueError("SQS did not answer")
        return []

    async def burst(count):
        sending = [aenqueue("a", id=f"id-{number}") for number in range(count)]
        return await asyncio.gather(*sending, return_exceptions=True)

    monkeypatch.setattr(delivery, "deliver", deliver)
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "http://127.0.0.1:1/1/jobs")
    hangs = False
    assert asyncio.run(burst(200)) == [f"id-{number}" for number in range(200)]
    hangs = True
    errors = asyncio.run(burst(20))
    assert [error.job_id for error in errors] == [f"id-{number}" for number in range(20)]
    assert [type(error) for error in errors] == [QueueError] * 8 + [RequestRefused] * 12


def test_the_event_loop_goes_on_while_sqs_hangs(monkeypatch, senders):
    stuck = threading.Event()
    monkeypatch.setattr(delivery, "deliver", lambda *_: stuck.wait() and [])
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "http://127.0.0.1:1/1/jobs")

    async def web():
        sending = asyncio.ensure_future(aenqueue("a"))
        for _ in range(20):  # would never come back to us if it waited here
            await asyncio.sleep(0)
        assert not sending.done()
        stuck.set()
        return await sending

    assert asyncio.run(web())


def test_what_is_wrong_with_a_call_is_said_as_enqueue_says_it():
    def greet(name):
        """Stands for a job."""

    with pytest.raises(BadParams, match="missing a required argument: 'name'; unexpected 'nam'"):
        call(greet, nam="Ada")
    with pytest.raises(SettingsError, match=r"takes the function itself; with its name write enqueue\('hello.greet'"):
        call("hello.greet", name="Ada")


def test_params_of_a_call_go_by_name_and_must_fit(ran):
    assert call(ran.ship, 7, fast=True).params == {"number": 7, "fast": True}
    with pytest.raises(BadParams, match="missing a required argument: 'number'"):
        call(ran.ship)
    with pytest.raises(BadParams, match="goes by position"):
        call(ran.odd, 1)
    with pytest.raises(SettingsError, match="params are given twice"):
        enqueue(call(ran.thank, 1), {"number": 2})


def test_the_context_of_the_caller_is_the_senders(ran, monkeypatch):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "inline:")
    asyncio.run(aenqueue(ran.thank, [3]))
    assert ran.done == [("thank", 3)]


def test_inline_a_job_shares_the_event_loop_of_who_awaits_it(ran, monkeypatch):
    """A client that the web app's code has used works in its jobs, and in theirs."""
    loops = []

    async def outer():
        loops.append(asyncio.get_running_loop())
        await aenqueue("inner")

    async def inner():
        loops.append(asyncio.get_running_loop())

    for function in (outer, inner):
        function.__module__, function.__qualname__ = "jobs", function.__name__
        monkeypatch.setattr(sys.modules["jobs"], function.__name__, function, raising=False)
    inline._catalog.cache_clear()
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "inline:")

    async def web():
        loops.append(asyncio.get_running_loop())
        await aenqueue("outer")

    asyncio.run(web())
    assert loops == [loops[0]] * 3


def test_two_that_overlap_each_leave_all_as_it_was(ran):
    first, second = enqueued(), enqueued()
    outer = first.__enter__()
    inner = second.__enter__()
    enqueue("thank", [1])
    first.__exit__(None, None, None)
    enqueue("thank", [2])
    second.__exit__(None, None, None)
    assert (outer, inner) == ([], [("thank", [1]), ("thank", [2])])
    assert "JOBRUNNER_QUEUE_URL" not in os.environ
    with pytest.raises(SettingsError, match="no queue"):
        enqueue("thank", [3])


def test_within_another_the_inner_collects(ran):
    with enqueued() as outer:
        with enqueued() as inner:
            enqueue("thank", [1])
        enqueue("thank", [2])
    assert (outer, inner) == ([("thank", [2])], [("thank", [1])])


def test_what_runs_after_the_collecting_sends_nothing_either(ran):
    with enqueued() as jobs:
        enqueue(ran.ship, {"number": 7})
    jobs.run()
    assert jobs == [("thank", [7])]


def test_a_job_for_later_is_kept_run_when_asked_or_taken_back(ran):
    at = datetime.now(UTC) + timedelta(days=3)
    with enqueued() as jobs:
        kept, taken = (enqueue("thank", [number], at=at) for number in (1, 2))
        near = enqueue("thank", [3], at=datetime.now(UTC) + timedelta(seconds=60))
        assert {job.at for job in jobs[:2]} == {at}
        assert (cancel(taken), cancel(taken), cancel(near)) == (True, False, False)
        jobs.run()
        assert [job.id for job in jobs] == [kept, near]
        jobs.run(delayed=True)
    assert ran.done == [("thank", 1), ("thank", 3)]


def test_what_scheduler_would_refuse_is_refused_here(ran, monkeypatch):
    at = datetime.now(UTC) + timedelta(days=3)
    for queue_url in (None, "inline:"):
        with enqueued():
            with pytest.raises(MalformedMessage, match="EventBridge Scheduler takes"):
                enqueue("thank", ["x" * 300_000], at=at, queue_url=queue_url)
            with pytest.raises(SettingsError, match="1 to 64 letters"):
                enqueue("thank", [1], at=at, id="a b", queue_url=queue_url)
    assert cancel("anything", queue_url="inline:") is False


def test_what_the_code_under_test_does_to_the_environment_stays(ran, monkeypatch):
    monkeypatch.setenv("OF_A_TEST", "before")
    with enqueued():
        monkeypatch.setenv("OF_A_TEST", "after")
    assert os.environ["OF_A_TEST"] == "after"
