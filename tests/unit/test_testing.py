"""`jobrunner.testing`: collected, compared, run; from threads, from event loops, by every form of `enqueue`."""

import asyncio
import contextlib
import os
import sys
import threading
import types

import pytest

from jobrunner import (
    BadParams,
    MalformedMessage,
    SettingsError,
    aenqueue,
    aenqueue_many,
    call,
    current_job,
    enqueue,
    enqueue_many,
)
from jobrunner.sending import asynchronous, inline
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
        asynchronous._threads(os.getpid()).shutdown()  # what goes on there would be the next test's
        asynchronous._threads.cache_clear()
    assert [job for job in jobs if job == ("thank", ["after"])], "the others may be there or not"


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
