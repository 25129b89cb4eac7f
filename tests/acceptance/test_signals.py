"""Signals reach whom they are meant for: a worker under any kind of job, children of jobs, a parent between two."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from servers import wait_for
from workers import PROGRAM

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
]

ROUNDS = int(os.environ.get("SIGNAL_ROUNDS", "4"))
JOBS = """
import multiprocessing, subprocess, sys, threading
def threads():
    for _ in range(30):
        thread = threading.Thread(target=time.sleep, args=(0.01,)); thread.start(); thread.join()
def programs():
    for _ in range(5): subprocess.run(["true"])
def forked():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,)); child.start()
    note(f"child {child.pid}")
    time.sleep(0.5)
    child.terminate()
    child.join(5)
    note(f"ended {child.exitcode}")
def leaves_a_child():
    pid = os.fork()
    if pid == 0:
        time.sleep(300)
        os._exit(0)
    note(f"child {pid}")
TOGETHER = threading.Barrier(200)
def computes():
    if TOGETHER.wait() == 0: note("all compute")
    while True: pass
def close_all():
    os.closerange(3, 512)
"""


def handles(pid, number):
    """Tell whether a process has a handler for a signal, by what the kernel knows."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << number - 1)


@pytest.fixture
def app(app):
    app.write_jobs(JOBS)
    return app


@pytest.mark.parametrize("method", ["threads", "programs"])
def test_every_sigterm_is_answered_whatever_jobs_do_with_threads_and_programs(app, method):
    """The kernel gives the signal to any thread; the main thread must wake all the same."""
    for _ in range(ROUNDS):
        app.enqueue(*[(method, {})] * 60)
        worker = app.consume()
        worker.wait("job.done", 8, method=method)
        code, seconds = worker.stop()
        assert (code, seconds < 3) == (0, True), f"{seconds} {worker}"


def test_two_hundred_threads_that_compute_stop_when_told_and_lose_nothing(app):
    """Each request of the stop must win the interpreter from two hundred that want it."""
    app.enqueue(*[("computes", {})] * 200)
    worker = app.consume("--threads", 200, "--visibility-timeout", 30)
    wait_for(app.notes)
    worker.stop()
    assert worker.named("worker.stopped"), str(worker)
    wait_for(lambda: app.counts() == (200, 0, 0))


def test_a_process_that_a_job_forks_ends_at_the_first_sigterm(app):
    worker = app.consume()
    app.enqueue(("forked", {}))
    worker.wait("job.done", method="forked")
    assert app.notes()[-1] == f"ended {-signal.SIGTERM}"


def test_a_process_that_a_job_leaves_behind_ends_with_the_worker(app):
    worker = app.consume(start_new_session=True, stdin=subprocess.DEVNULL)
    app.enqueue(("leaves_a_child", {}))
    worker.wait("job.done")
    child = psutil.Process(int(app.notes()[0].split()[1]))
    # A copy would keep the long poll open after the worker's end, and what it is given would go to nobody.
    wait_for(
        lambda: child.net_connections("inet") == []
    )  # closed in the child, whose first steps the job does not wait for
    worker.stop()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_sigterm_to_a_reloading_worker_whose_module_is_broken_ends_it(app):
    app.write("jobs.py", "import not_installed\n")
    for pause in (0.0, 0.2, 0.5, 0.9):
        worker = app.consume("--reload")
        worker.wait("worker.refused")
        time.sleep(pause)
        worker.signal()
        worker.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_imports_itself_ends_it_at_once(app, number):
    for pause in (0.1, 0.2, 0.3):
        worker = app.consume()
        wait_for(lambda process=worker.process: handles(process.pid, signal.SIGTERM))
        time.sleep(pause - 0.1)
        worker.signal(number)
        assert worker.end() == 0
        assert not worker.other, "a traceback, or Aborted!"


def test_process_1_of_a_container_heeds_a_signal_from_the_start(app):
    """It has no default actions: what has no handler is ignored."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", *PROGRAM]
    if subprocess.run([*words, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives nobody a process 1 of one's own")
    for command in (["consume", "--queue-url", app.queue_url], ["crons", "run", "--queue-url", app.queue_url]):
        parent = subprocess.Popen([*words, *command, "--app-dir", app.folder], stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda parent=parent: psutil.Process(parent.pid).children())
            (first,) = psutil.Process(parent.pid).children()
            wait_for(lambda first=first: handles(first.pid, signal.SIGTERM))
            first.terminate()
            assert parent.wait(5) in {0, 128 + signal.SIGTERM}
        finally:
            parent.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_is_ready_ends_it_at_once(app, number):
    """While it waits for its queue, or imports the app: nothing is in hand yet."""
    nowhere = app.consume("--queue-url", "http://127.0.0.1:1/000000000000/jobs")
    nowhere.wait("sqs.outage")
    nowhere.signal(number)
    assert nowhere.end(3) == 0
    app.write("jobs.py", "import time; open('importing', 'w').close(); time.sleep(60)\n")
    slow = app.consume(cwd=app.folder)
    wait_for((app.folder / "importing").exists)
    slow.signal(number)
    assert slow.end(3) == 0


def test_a_worker_whose_job_closes_every_descriptor_ends_with_a_word(app):
    """Their numbers are given out anew: what is meant for one connection would go into another."""
    worker = app.consume()
    app.enqueue(("close_all", {}))
    assert worker.end() == 8, str(worker)
    assert worker.named("descriptors.closed") or worker.named("thread.died")


def test_a_worker_that_was_killed_is_said_by_the_next(app):
    worker = app.consume()
    worker.wait("worker.ready")
    worker.kill()
    (line,) = app.consume().wait("worker.killed")
    assert line["worker_pid"] == worker.process.pid


def test_an_app_patched_by_gevent_is_refused_with_the_cure(app):
    app.write("gevent/__init__.py", "")
    app.write("gevent/monkey.py", "def is_module_patched(name): return True\n")
    app.write_jobs("import gevent.monkey\n")
    worker = app.consume()
    assert worker.end() == 3
    assert "gunicorn" in worker.named("worker.refused")[0]["error"]
