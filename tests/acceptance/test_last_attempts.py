"""The last attempt in a process of its own: nothing but its own limit, its own crash or its own end ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from servers import wait_for

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
]

JOBS = """
import subprocess, sys, threading
from jobrunner import current_job
def second(name, seconds=0.0):
    if current_job().attempt == 1:
        raise ValueError("the first time")
    note(f"start {name} {os.getpid()} {os.getppid()}")
    time.sleep(seconds)
    assert subprocess.run(["sh", "-c", "kill -TERM $$"]).returncode == -15, "programs heed SIGTERM"
    note(f"end {name}")
def hang_second():
    if current_job().attempt == 1:
        raise ValueError("the first time")
    note(f"start hang {os.getpid()}")
    threading.Event().wait()
def hang():
    note("start neighbour")
    threading.Event().wait()
def quiet_second():
    if current_job().attempt == 1:
        raise ValueError("the first time")
def told_second():
    if current_job().attempt == 1:
        raise ValueError("the first time")
    note("start told")
    while not current_job().stopping: time.sleep(0.1)
    note("end told")
def close_all_second():
    if current_job().attempt == 1:
        raise ValueError("the first time")
    os.closerange(3, 512)
def close_stdout():
    os.close(1)
    sys.stdout = None
"""


@pytest.fixture
def last(app, make_queue, server_url):
    """An app on a queue with two attempts."""
    app.write_jobs(JOBS)
    app.queue_url = make_queue(server_url, attempts_max=2, visibility_seconds=10)
    return app


def started(app, name, count=1):
    def found():
        return [note.split() for note in app.notes() if note.startswith(f"start {name}")]

    return wait_for(lambda: len(found()) >= count and found(), what=lambda: f"{app.notes()}")


def wait_until_done(app, name, seconds=60):
    wait_for(lambda: f"end {name}" in app.notes(), seconds, app.notes)
    wait_for(lambda: app.counts() == (0, 0, 0), seconds, lambda: f"{app.counts()}")
    assert app.counts(dead=True) == (0, 0, 0)


def test_after_a_job_closed_stdout_a_last_attempt_still_runs_and_its_lines_come_out(last):
    worker = last.consume()
    last.enqueue(("close_stdout", {}))
    worker.wait("job.done", method="close_stdout")
    last.enqueue(("second", {"name": "x"}))
    worker.wait("job.done", method="second")
    wait_until_done(last, "x")


def test_a_last_attempt_asks_the_queue_for_nothing_and_goes_on_trying_to_delete_also_when_its_worker_stops(last, proxy):
    worker = last.consume(env={"AWS_ENDPOINT_URL_SQS": proxy.url})
    worker.wait("worker.ready")
    proxy.fault("denied", actions=["GetQueueAttributes"])
    last.enqueue(("second", {"name": "x", "seconds": 1}))
    started(last, "x")
    proxy.fault("unavailable", actions=["DeleteMessageBatch"])
    wait_for(lambda: "end x" in last.notes())
    wait_for(lambda: proxy.injected["unavailable"])
    worker.signal()
    assert worker.process.wait(60) == 0
    wait_for(lambda: proxy.injected["unavailable"] > 12, what=lambda: f"longer than one lease: {proxy.injected}")
    proxy.end_faults()
    wait_until_done(last, "x")
    assert not worker.named("alone.not_started")


def test_one_that_closes_every_descriptor_and_returns_is_done_and_not_called_a_failure(last):
    worker = last.consume()
    last.enqueue(("close_all_second", {}))
    worker.wait("job.done", method="close_all_second")
    wait_for(lambda: last.counts() == (0, 0, 0))
    assert worker.stop()[0] == 0
    assert (len(worker.named("job.failed")), worker.named("job.given_up")) == (1, []), str(worker)
    assert last.counts(dead=True) == (0, 0, 0)


def test_a_neighbour_over_its_limit_does_not_end_a_last_attempt(last):
    worker = last.consume("--job-timeout", 8)
    last.enqueue(("second", {"name": "x", "seconds": 7}))
    last.enqueue(("hang", {}))
    pid = int(started(last, "x")[0][2])
    assert worker.end() == 6
    assert psutil.pid_exists(pid)
    wait_for(lambda: "end x" in last.notes(), 60, last.notes)
    wait_for(lambda: not psutil.pid_exists(pid))
    assert last.counts(dead=True) == (0, 0, 0)
    assert sum(last.counts()) == 1, "what hung waits for its second attempt"


def test_its_own_limit_ends_it_with_its_stack(last):
    worker = last.consume("--job-timeout", 3)
    last.enqueue(("hang_second", {}))
    pid = int(started(last, "hang")[0][2])
    (line,) = worker.wait("job.timed_out")
    assert "threading.Event().wait()" in line["stack"]
    wait_for(lambda: not psutil.pid_exists(pid))
    wait_for(lambda: sum(last.counts(dead=True)) == 1 or not last.counts()[1])
    assert worker.stop()[0] == 0, "and only it"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_goes_on_when_its_worker_ends_and_renews_and_deletes_by_itself(last, number):
    """Two visibility timeouts long: nobody else gets it, and it is no dead letter."""
    worker = last.consume()
    last.enqueue(("second", {"name": "x", "seconds": 20}))
    started(last, "x")
    worker.signal(number)
    assert worker.process.wait(60) == (0 if number == signal.SIGTERM else -9)
    other = last.consume()
    wait_until_done(last, "x")
    assert last.notes().count("end x") == 1
    assert other.stop()[0] == 0


def test_it_sees_that_the_worker_that_started_it_has_ended(last):
    worker = last.consume()
    last.enqueue(("told_second", {}))
    started(last, "told")
    assert last.notes() == ["start told"]
    worker.signal()
    wait_until_done(last, "told")


def test_a_signal_to_the_whole_group_is_not_meant_for_it(last):
    """Ctrl-C, or a supervisor that signals the group: twice."""
    worker = last.consume(start_new_session=True)
    last.enqueue(("second", {"name": "x", "seconds": 4}))
    pid = int(started(last, "x")[0][2])
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    os.killpg(worker.process.pid, signal.SIGTERM)
    assert worker.end() == 0
    wait_until_done(last, "x")


def test_those_that_a_stop_finds_waiting_for_their_turn_are_sent_anew_and_none_is_a_dead_letter(last):
    """Two run at a time, in processes that go on; three wait for a thread's turn."""
    names = [f"x{number}" for number in range(5)]
    worker = last.consume()
    last.enqueue(*[("second", {"name": name, "seconds": 3}) for name in names])
    started(last, "x", 2)
    wait_for(lambda: last.counts() == (0, 5, 0), what=lambda: f"{last.counts()} {worker}")
    code, _ = worker.stop()
    assert (code, len(worker.named("job.sent_anew"))) == (0, 3), str(worker)
    other = last.consume()
    for name in names:
        wait_until_done(last, name)
    anew = {line["job_id"] for line in worker.named("job.sent_anew")}
    assert {line["job_id"] for line in other.named("job.done", method="second")} == anew, "the same jobs"
    assert len(anew) == 3


def test_a_hung_one_without_a_parent_ends_by_its_own_limit(last):
    worker = last.consume("--job-timeout", 3)
    last.enqueue(("hang_second", {}))
    pid = int(started(last, "hang")[0][2])
    worker.kill()
    wait_for(lambda: not psutil.pid_exists(pid), 15)


def test_it_offers_itself_first_to_the_out_of_memory_killer(last):
    last.consume()
    last.enqueue(("second", {"name": "x", "seconds": 3}))
    ((_, _, pid, parent),) = started(last, "x")
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    assert Path(f"/proc/{parent}/oom_score_adj").read_text().strip() != "1000"
    wait_until_done(last, "x")


def test_at_most_two_run_alone_at_a_time_and_none_is_a_dead_letter(last):
    worker = last.consume("--threads", 20)
    names = [f"n{n}" for n in range(8)]
    last.enqueue(*[("second", {"name": name, "seconds": 0.5}) for name in names])
    most = 0
    deadline = time.monotonic() + 60
    while len([note for note in last.notes() if note.startswith("end")]) < 8 and time.monotonic() < deadline:
        children = [child for child in psutil.Process(worker.process.pid).children() if "last_attempt" in named(child)]
        most = max(most, len(children))
        time.sleep(0.05)
    assert most == 2
    for name in names:
        wait_until_done(last, name)


def named(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.long
def test_on_a_busy_machine_every_last_attempt_runs(last):
    """Beside programs that compute, on whatever cores there are; the visibility timeout is 10 s."""
    size = int(os.environ.get("BUSY_JOBS", "4"))  # full size: 30
    load = int(os.environ.get("BUSY_LOAD", "4"))  # full size: 20
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(load)]
    try:
        worker = last.consume("--threads", 30)
        worker.wait("worker.ready", seconds=60)
        names = [f"n{n}" for n in range(size)]
        last.enqueue(*[("second", {"name": name}) for name in names])
        wait_for(lambda: all(f"end {name}" in last.notes() for name in names), 60 + 20 * size, lambda: str(worker))
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    wait_until_done(last, names[-1])
    assert not worker.named("alone.not_started")


def test_an_app_folder_that_is_swapped_is_not_the_jobs_failure(last):
    """A deploy renames the folder; what is loaded goes on, and what cannot start apart runs beside the others."""
    app_dir = last.folder / "current"
    app_dir.mkdir()
    (last.folder / "jobs.py").rename(app_dir / "jobs.py")
    worker = last.consume("--app-dir", app_dir)
    last.enqueue(("quiet_second", {}))
    worker.wait("job.failed")
    app_dir.rename(last.folder / "old")
    worker.wait("alone.not_started")
    worker.wait("job.done", method="quiet_second")
    wait_for(lambda: last.counts() == (0, 0, 0))
    assert last.counts(dead=True) == (0, 0, 0)


def test_the_last_failure_is_said_and_a_dead_letter_at_once(last):
    """No backoff is waited for that leads nowhere; and each line says which process wrote it."""
    worker = last.consume()
    last.enqueue(("fail", {}))
    (given_up,) = worker.wait("job.given_up", method="fail", reason="failed", attempt=2)
    _, final = worker.named("job.failed")
    assert (final["retry_seconds"], final["attempts_max"]) == (None, 2)
    assert given_up["pid"] == final["pid"] != worker.process.pid
    wait_for(lambda: last.counts(dead=True) == (1, 0, 0))
    assert not [line for line in worker.lines if line["event"].startswith("worker.sto")]
