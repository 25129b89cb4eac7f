"""`async def` jobs: one loop, errors as values, stacks that show the job."""

import asyncio
import threading

import pytest
from servers import wait_for

from jobrunner.app.coroutines import Coroutines


@pytest.fixture
def coroutines():
    loop = Coroutines()
    threading.Thread(target=loop.loop, name="coroutines", daemon=True).start()
    yield loop
    loop._loop.call_soon_threadsafe(loop._loop.stop)
    wait_for(lambda: not loop._loop.is_running())
    loop._loop.close()


def test_results_come_back_and_all_jobs_share_one_loop(coroutines):
    async def job():
        return asyncio.get_running_loop()

    assert coroutines.result_of(job()) is coroutines.result_of(job())


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_a_job_raises_is_the_jobs_and_the_loop_goes_on(coroutines, error):
    async def job():
        raise error

    async def fine():
        return 7

    with pytest.raises(error):
        coroutines.result_of(job())
    assert coroutines.result_of(fine()) == 7


def test_the_stack_of_a_waiting_job_shows_where_it_waits(coroutines):
    release = threading.Event()

    async def inner_most():
        while not release.is_set():
            await asyncio.sleep(0.01)

    async def job():
        await inner_most()

    worker = threading.Thread(target=lambda: coroutines.result_of(job()))
    worker.start()
    stack = wait_for(lambda: "inner_most" in (found := coroutines.stack_for(worker.ident) or "") and found)
    assert "in job" in stack
    release.set()
    worker.join()
    assert coroutines.stack_for(worker.ident) is None
