"""What one job leaves behind must not reach the next: memory, context, the event loop, attempts."""

import os
import time

import psutil
import pytest
from servers import counts, wait_for

from jobrunner import enqueue

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
]

JOBS = """
import contextvars, structlog
TENANT = contextvars.ContextVar("tenant", default="nobody")
async def a_failure_of_50_mb():
    held = bytearray(50_000_000)
    raise ValueError(len(held))
def failure_of_50_mb():
    held = bytearray(50_000_000)
    raise ValueError(len(held))
def tenant(name):
    log.warning(f"before {name} {TENANT.get()}")
    TENANT.set(name)
    structlog.contextvars.bind_contextvars(tenant=name)
async def atenant(name):
    tenant(name)
async def exit_in_subtask():
    async def leave(): raise SystemExit
    await asyncio.gather(leave())
async def stop_the_loop():
    asyncio.get_running_loop().stop()
async def fork_and_return():
    os.fork()
async def other():
    note("the inner one ran")
async def returns_another():
    return other()
async def block(seconds):
    note("start block")
    time.sleep(seconds)
def takes(body): pass
def slow_in_thirty(n):
    if n % 30 == 0: time.sleep(3)
"""


@pytest.fixture
def app(app):
    app.write_jobs(JOBS)
    return app


@pytest.mark.parametrize("method", ["failure_of_50_mb", "a_failure_of_50_mb"])
def test_failed_jobs_leave_no_memory_behind(app, method):
    worker = app.consume("--threads", 2)
    worker.wait("worker.ready")
    process = psutil.Process(worker.process.pid)
    app.enqueue(*[(method, {})] * 10)
    worker.wait("job.failed", 10, method=method)
    before = process.memory_info().rss
    app.enqueue(*[(method, {})] * 30)
    worker.wait("job.failed", 40, method=method)
    assert process.memory_info().rss - before < 110_000_000, "at most the two that may be running again"


def test_a_worker_that_is_idle_keeps_no_bodies(app):
    worker = app.consume()
    worker.wait("worker.ready")
    process = psutil.Process(worker.process.pid)
    before = process.memory_info().rss
    for round_ in (1, 2):
        app.enqueue(*[("takes", {"body": "x" * 1_000_000})] * 50)
        worker.wait("job.done", 50 * round_)
    app.wait_until_empty()
    # What the allocator keeps differs by Python and by chance, 25 to 50 MB; all bodies would be 100 MB and more.
    assert process.memory_info().rss - before < 90_000_000


@pytest.mark.parametrize("method", ["tenant", "atenant"])
def test_what_a_job_puts_into_its_context_is_not_the_next_ones(app, method):
    worker = app.consume("--threads", 1)
    for name in ("acme", "globex"):
        enqueue(method, {"name": name}, queue_url=app.queue_url)
        worker.wait("job.done", 1 + (name == "globex"), method=method)
    befores = [line for line in worker.lines if str(line.get("event")).startswith("before")]
    assert [line["event"] for line in befores] == ["before acme nobody", "before globex nobody"]
    assert [line.get("tenant") for line in befores + worker.named("job.done")] == [None] * 4


@pytest.mark.parametrize("method", ["exit_in_subtask", "stop_the_loop", "fork_and_return"])
def test_an_async_job_that_harms_the_loop_does_not_harm_the_others_on_it(app, method):
    worker = app.consume()
    app.enqueue(*[("anap", {"seconds": 2, "name": f"n{n}"}) for n in range(4)])
    wait_for(lambda: len(app.notes()) == 4)
    app.enqueue((method, {}))
    worker.wait("job.failed" if method == "exit_in_subtask" else "job.done", method=method)
    worker.wait("job.done", 4, method="anap")
    app.enqueue(("anap", {"seconds": 0, "name": "after"}))
    worker.wait("job.done", 5, method="anap")
    assert worker.stop()[0] == 0
    assert len(app.notes()) == len(set(app.notes())) == 5


def test_a_job_that_returns_a_coroutine_is_done_when_that_ran(app):
    worker = app.consume()
    app.enqueue(("returns_another", {}))
    worker.wait("job.done")
    assert app.notes() == ["the inner one ran"]


def test_an_app_that_takes_our_log_handler_away_is_told_so_at_the_start(app):
    app.write_jobs(
        "import logging.config\nlogging.config.dictConfig({'version': 1, 'handlers': {'theirs': "
        "{'class': 'logging.StreamHandler'}}, 'root': {'handlers': ['theirs']}})\n"
    )
    worker = app.consume()
    (found,) = worker.wait("check.finding", subject="logging")
    assert found["cure"].startswith("call fileConfig or dictConfig in the web server only")


def test_a_job_that_blocks_the_loop_is_the_only_one_over_its_limit(app):
    worker = app.consume("--job-timeout", 8)
    app.enqueue(*[("anap", {"seconds": 60, "name": f"n{n}"}) for n in range(3)])
    wait_for(lambda: len(app.notes()) == 3)
    time.sleep(1)
    app.enqueue(("block", {"seconds": 60}))
    wait_for(lambda: "start block" in app.notes())
    assert worker.end() == 6, str(worker)
    assert [line["method"] for line in worker.named("job.timed_out")] == ["block"]
    assert "time.sleep(seconds)" in worker.named("job.timed_out")[0]["stack"]


@pytest.mark.parametrize("attempts_max", [1, 2, 3])
def test_with_few_attempts_nothing_becomes_a_dead_letter_that_never_ran(app, make_queue, server_url, attempts_max):
    app.queue_url = make_queue(server_url, attempts_max=attempts_max)
    worker = app.consume()
    count = int(os.environ.get("FEW_ATTEMPTS_JOBS", "450"))
    app.enqueue(*[("slow_in_thirty", {"n": n}) for n in range(count)])
    worker.wait("job.done", count, seconds=200, method="slow_in_thirty")
    wait_for(lambda: counts(app.queue_url) == (0, 0, 0))
    assert counts(app.queue_url, dead=True) == (0, 0, 0)


def test_a_thousand_jobs_that_all_fail_keep_their_backoffs(app):
    worker = app.consume("--visibility-timeout", 10)
    app.enqueue(*[("fail", {})] * 1500)
    worker.wait("job.failed", 1500, seconds=60)
    assert worker.named("job.not_released") == []
    assert worker.stop()[0] == 0


def test_one_sigterm_spends_one_attempt_of_a_message_that_has_two(app, make_queue, server_url):
    """What is handed back is hidden until our own long poll is over."""
    app.queue_url = make_queue(server_url, attempts_max=2)
    worker = app.consume("--wait-seconds", 6)
    app.enqueue(("nap", {"seconds": 5, "name": "x"}))
    wait_for(app.notes)
    assert worker.stop()[0] == 0
    other = app.consume()
    other.wait("job.done", attempt=2, seconds=40)
    assert counts(app.queue_url, dead=True) == (0, 0, 0)
