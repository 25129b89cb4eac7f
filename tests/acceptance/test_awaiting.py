"""`async def` jobs: many at a time, each with what a plain job has. `ASYNC_JOBS=1000` waits with as many."""

import os
import signal
import time

import pytest
from servers import wait_for

pytestmark = pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
MANY = int(os.environ.get("ASYNC_JOBS", "150"))

JOBS = """
from contextlib import asynccontextmanager
from jobrunner import current_job
async def hang():
    note("start hang")
    await asyncio.Event().wait()
async def stubborn():
    note("start stubborn")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("cancelled")
async def block(seconds):
    time.sleep(seconds)
async def fail_async():
    error = ValueError("spoilt")
    error.retry_seconds = 0
    raise error
async def me(name):
    await asyncio.sleep(0.05)
    note(f"{name} {current_job().id}")
@asynccontextmanager
async def scope():
    await asyncio.sleep(0)
    note("entered")
    yield
    note("left")
"""


@pytest.fixture
def hall(app):
    app.write_jobs(JOBS)
    return app


def test_hundreds_wait_at_once_and_plain_jobs_beside_them_lose_nothing(hall):
    worker = hall.consume("--async-jobs", 2 * MANY)
    hall.enqueue(*[("anap", {"seconds": 4})] * MANY)
    wait_for(lambda: hall.counts()[0] == 0, what="all of them in hand")
    hall.enqueue(*[("noop", [])] * 40)
    worker.wait("job.done", 40, method="noop")
    done = worker.wait("job.done", MANY, method="anap")
    assert {line["attempt"] for line in done} == {1}
    plain = [line["timestamp"] for line in worker.named("job.done", method="noop")]
    assert max(plain) < max(line["timestamp"] for line in done)
    assert worker.stop()[0] == 0


def test_at_most_so_many_run_and_the_others_stay_on_the_queue(hall):
    worker = hall.consume("--async-jobs", 5)
    hall.enqueue(*[("anap", {"seconds": 0.4, "name": "x"})] * 30)
    done = worker.wait("job.done", 30, method="anap")
    assert min(line["duration_ms"] for line in done) >= 400
    first, last = (time.strptime(line["timestamp"][:19], "%Y-%m-%dT%H:%M:%S") for line in (done[0], done[-1]))
    assert time.mktime(last) - time.mktime(first) >= 1, "in six turns"
    assert max(line["attempt"] for line in done) <= 2, "what could not start was left to others"


def test_one_over_its_limit_is_cancelled_alone_with_its_stack(hall):
    worker = hall.consume("--job-timeout", 2)
    hall.enqueue(("hang", []), ("anap", {"seconds": 1}), ("nap", {"seconds": 1}))
    (line,) = worker.wait("job.timed_out")
    assert (line["method"], "await asyncio.Event().wait()" in line["stack"]) == ("hang", True)
    hall.enqueue(("me", ["after"]))
    worker.wait("job.done", method="me")
    assert not worker.named("worker.stopping"), "the process goes on"
    assert not worker.named("job.failed"), "one line says it"
    wait_for(lambda: hall.counts()[1] == 1, what="the culprit waits out its backoff")
    assert worker.stop()[0] == 0


def test_one_that_cannot_be_cancelled_ends_the_process(hall):
    worker = hall.consume("--job-timeout", 1)
    hall.enqueue(("stubborn", []))
    assert worker.end() == 6
    assert "cancelled" in hall.notes()


def test_one_that_blocks_the_loop_is_named(hall):
    worker = hall.consume("--job-timeout", 3)
    hall.enqueue(("anap", {"seconds": 0.1}))
    worker.wait("job.done", method="anap")
    hall.enqueue(("block", [2.5]))
    (line,) = worker.wait("loop.blocked")
    assert (line["method"], "time.sleep(seconds)" in line["stack"]) == ("block", True)
    worker.wait("job.done", method="block")
    hall.enqueue(("block", [30]))
    assert worker.end() == 6, "it cannot be cancelled either"
    assert "time.sleep(seconds)" in worker.named("job.timed_out")[0]["stack"]


def test_sigterm_hands_all_back_and_sigusr1_shows_where_each_stands(hall):
    worker = hall.consume("--async-jobs", 2 * MANY)
    hall.enqueue(*[("hang", [])] * MANY)
    wait_for(lambda: hall.notes().count("start hang") == MANY, what="all of them")
    worker.signal(signal.SIGUSR1)
    shown = worker.wait("dump.job", MANY)
    assert all("await asyncio.Event().wait()" in line["stack"] for line in shown)
    code, seconds = worker.stop()
    assert (code, seconds < 3) == (0, True), f"{seconds} {worker}"
    assert worker.named("worker.stopped")[0]["handed_back_count"] == MANY
    wait_for(lambda: hall.counts()[1] <= MANY // 50, what="all of them visible, or nearly")


def test_each_has_a_context_of_its_own_and_around_may_be_async(hall):
    worker = hall.consume("--around", "jobs:scope")
    ids = hall.enqueue(*[("me", [str(n)]) for n in range(20)], ("noop", []))
    worker.wait("job.done", 20, method="me")
    notes = hall.notes()
    assert sorted(note for note in notes if note[0].isdigit()) == sorted(
        f"{n} {job_id}" for n, job_id in enumerate(ids[:20])
    )
    assert (notes.count("entered"), notes.count("left")) == (20, 20)
    (line,) = worker.wait("around.broken")
    assert "`async def` jobs can enter and plain ones cannot" in line["error"]


@pytest.mark.long
def test_its_lease_is_renewed_and_its_last_attempt_is_alone(hall, make_queue, server_url):
    hall.queue_url = make_queue(server_url, visibility_seconds=10, attempts_max=2)
    worker, other = hall.consume(), hall.consume()
    hall.enqueue(("anap", {"seconds": 14, "name": "long"}), ("me", ["x"]))
    wait_for(lambda: any(line["event"] == "job.done" for line in worker.lines + other.lines))
    done = wait_for(lambda: worker.named("job.done", method="anap") or other.named("job.done", method="anap"))
    assert (hall.notes().count("start long"), done[0]["attempt"]) == (1, 1)
    hall.enqueue(("fail_async", []))
    failed = wait_for(lambda: [line for line in worker.lines + other.lines if line["event"] == "job.given_up"])
    assert failed[-1]["pid"] not in (worker.process.pid, other.process.pid)
