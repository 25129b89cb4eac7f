"""`async def` jobs: one loop, errors as values, stacks that show the job."""

import asyncio
import os
import threading

import pytest
from servers import wait_for

from jobrunner.app.coroutines import Coroutines


@pytest.fixture
def coroutines():
    loop = Coroutines()
    threading.Thread(target=loop.loop, name="coroutines", daemon=True).start()
    return loop


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
    stack = wait_for(lambda: "in inner_most" in (found := coroutines.stack_of(worker.ident)) and found)
    assert "in job" in stack
    release.set()
    worker.join()
    assert coroutines.stack_of(worker.ident) == "the thread has ended"


@pytest.mark.parametrize("harm", ["exit in a subtask", "stop the loop"])
def test_a_job_that_ends_the_loop_ends_only_itself(coroutines, harm):
    async def leave():
        raise SystemExit

    async def job():
        if harm == "exit in a subtask":
            await asyncio.gather(leave())
        asyncio.get_running_loop().stop()

    async def neighbour():
        await asyncio.sleep(0.2)
        return 7

    results = []
    other = threading.Thread(target=lambda: results.append(coroutines.result_of(neighbour())))
    other.start()
    try:
        coroutines.result_of(job())
    except SystemExit:
        assert harm == "exit in a subtask"
    other.join(10)
    assert results == [7]
    assert coroutines.result_of(neighbour()) == 7


def test_a_job_that_forks_does_not_run_the_others_in_the_child(coroutines, tmp_path):
    async def neighbour():
        for _ in range(20):
            await asyncio.sleep(0.02)
            with (tmp_path / "pids").open("a") as pids:
                pids.write(f"{os.getpid()}\n")

    async def forks():
        await asyncio.sleep(0.05)
        child = os.fork()
        await asyncio.sleep(0.1)
        return child

    other = threading.Thread(target=coroutines.result_of, args=(neighbour(),))
    other.start()
    child = coroutines.result_of(forks())
    other.join()
    assert os.waitpid(child, 0) == (child, 0)
    assert set((tmp_path / "pids").read_text().split()) == {str(os.getpid())}
