"""Jobs that hang, hold the interpreter, kill their process or otherwise misbehave: the worker keeps its promises."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from servers import counts, wait_for
from workers import PROGRAM

from jobrunner.message import Call, encode

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
]

NOOPS = int(os.environ.get("NOOP_JOBS", "2000"))  # full size: 10,000
HOSTILE = """
import ctypes, re, signal, subprocess, sys, threading
def system_exit(): raise SystemExit(0)
def interrupt(): raise KeyboardInterrupt
def recurse(): recurse()
def no_memory(): raise MemoryError
def unspeakable():
    class E(Exception):
        def __str__(self): raise ValueError
        __repr__ = __str__
    raise E
def close_stdout():
    os.close(1)
    sys.stdout = None
def change_directory(): os.chdir("/")
def start_threads():
    for _ in range(20): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def thread_that_raises():
    thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
def fork_and_return(): os.fork()
def fork_and_raise():
    if os.fork() == 0: raise ValueError("in the child")
def block_signals(): signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
async def cancel_all():
    for task in asyncio.all_tasks(): task.cancel()
    await asyncio.sleep(1)
async def exit_in_task(): raise SystemExit
def generator_result(): return (n for n in [1])
def os_exit(): os._exit(0)
def segfault(): ctypes.string_at(0)
def hang():
    note("start hang")
    threading.Event().wait()
async def ahang():
    note("start hang")
    await asyncio.sleep(3600)
def hold(after=0.0):
    note(f"start {after}")
    time.sleep(after)
    ctypes.PyDLL(None).sleep(60)
def regex(): re.match("(a+)+$", "a" * 40 + "b")
def leak(): HOARD.append(bytearray(200_000_000))
HOARD = []
def child():
    process = subprocess.Popen(["sleep", "300"])
    note(f"child {process.pid}")
    time.sleep(300)
"""


@pytest.fixture
def hostile(app):
    app.write_jobs(HOSTILE)
    return app


@pytest.mark.long
def test_a_job_ten_times_as_long_as_the_visibility_timeout_runs_once(hostile):
    workers = [hostile.consume("--visibility-timeout", 10) for _ in range(2)]
    hostile.enqueue(("nap", {"seconds": 100, "name": "long"}))
    wait_for(lambda: "end long" in hostile.notes(), 120, lambda: str(workers[0]))
    hostile.wait_until_empty()
    assert hostile.notes() == ["start long", "end long"]
    assert sum(len(worker.named("job.done", attempt=1)) for worker in workers) == 1


@pytest.mark.parametrize(
    "method",
    [
        "system_exit",
        "interrupt",
        "recurse",
        "no_memory",
        "unspeakable",
        "generator_result",
        "exit_in_task",
        "cancel_all",
        "fork_and_raise",
    ],
)
def test_what_a_job_raises_is_a_failure_and_the_worker_goes_on(hostile, method):
    worker = hostile.consume()
    if method == "fork_and_raise":
        hostile.enqueue((method, {}), ("note", ["after"]))
        worker.wait("job.done", method=method)
    else:
        hostile.enqueue((method, {}))
        worker.wait("job.failed", method=method)
        hostile.enqueue(("note", ["after"]))
    wait_for(lambda: "after" in hostile.notes(), what=lambda: str(worker))
    assert worker.stop()[0] == 0
    assert sum(hostile.counts()) == (0 if method == "fork_and_raise" else 1)


@pytest.mark.parametrize(
    "method",
    ["close_stdout", "change_directory", "start_threads", "thread_that_raises", "fork_and_return", "block_signals"],
)
def test_a_job_that_misbehaves_and_returns_is_done_and_the_worker_goes_on(hostile, method, tmp_path):
    worker = hostile.consume("--status-file", "status.json", cwd=tmp_path)
    hostile.enqueue((method, {}))
    worker.wait("job.done", method=method)
    hostile.enqueue(("note", ["after"]))
    worker.wait("job.done", method="note")
    hostile.wait_until_empty()
    wait_for((tmp_path / "status.json").exists)
    code, seconds = worker.stop()
    assert (code, seconds < 3) == (0, True)


def test_a_job_over_its_limit_ends_the_process_with_its_stack_and_comes_back_with_backoff(hostile):
    worker = hostile.consume("--job-timeout", 2)
    hostile.enqueue(
        ("hang", {}), ("nap", {"seconds": 2.5, "name": "neighbour"}), ("nap", {"seconds": 60, "name": "long"})
    )
    hostile.enqueue(("nap", {"seconds": 1.9, "name": "in time"}))
    assert worker.end() == 6, str(worker)
    stacks = [line["stack"] for line in worker.named("job.timed_out", method="hang")]
    assert "threading.Event().wait()" in stacks[0]
    assert "end in time" in hostile.notes()
    visible, hidden, _ = hostile.counts()
    assert visible + hidden >= 2
    assert hidden >= 1, "the culprit waits out its backoff"


def test_a_regular_expression_that_holds_the_interpreter_ends_the_process_in_time(hostile):
    worker = hostile.consume("--visibility-timeout", 10)
    hostile.enqueue(("regex", {}))
    assert worker.end() == 1
    next_one = hostile.consume()
    found = next_one.wait("deadman.found")[0]
    assert "in regex" in found["stacks"]
    next_one.kill()


@pytest.mark.long
def test_over_eight_offsets_the_dead_mans_exit_precedes_the_end_of_the_lease_by_a_second(
    hostile, server_url, make_queue, client
):
    """Each hog has a queue of its own, so that what becomes visible again is seen at once."""
    exits, shows = {}, {}
    queues = {after: make_queue(server_url) for after in (n * 0.625 for n in range(8))}
    workers = {
        after: hostile.consume("--queue-url", url, "--visibility-timeout", 10, "--threads", 1)
        for after, url in queues.items()
    }

    def note_exit(after):
        workers[after].process.wait(120)
        exits[after] = time.monotonic()

    for after in queues:
        workers[after].wait("worker.ready", seconds=60)
        threading.Thread(target=note_exit, args=(after,)).start()
    for after, url in queues.items():
        body = encode(Call(method="hold", params={"after": after}))
        client(server_url).send_message(QueueUrl=url, MessageBody=body)
    deadline = time.monotonic() + 40
    while len(shows) < len(queues) and time.monotonic() < deadline:
        for after, url in queues.items():
            if after not in shows and f"start {after}" in hostile.notes() and counts(url)[0]:
                shows[after] = time.monotonic()
    assert [workers[after].process.returncode for after in queues] == [1] * 8
    margins = {after: round(shows[after] - exits[after], 2) for after in queues}
    assert min(margins.values()) >= 1, margins


def test_the_switch_works_with_stderr_blocked(hostile):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 65536)
    except BlockingIOError:
        os.set_blocking(writer, True)
    words = ["consume", "--queue-url", hostile.queue_url, "--app-dir", hostile.folder, "--visibility-timeout", 10]
    process = subprocess.Popen([*PROGRAM, *map(str, words)], stdout=subprocess.DEVNULL, stderr=writer)
    hostile.enqueue(("hold", {}))
    assert process.wait(60) == 1
    os.close(reader)
    os.close(writer)


def test_a_full_memory_is_recycled_after_the_running_jobs(hostile):
    worker = hostile.consume("--max-memory-mb", 150)
    hostile.enqueue(("nap", {"seconds": 3, "name": "slow"}))
    wait_for(lambda: hostile.notes() == ["start slow"], what=lambda: str(worker))
    hostile.enqueue(("leak", {}))
    assert worker.end() == 9, str(worker)
    assert hostile.notes() == ["start slow", "end slow"]
    assert hostile.counts() == (0, 0, 0)


def test_a_broken_loop_ends_the_process_with_its_own_code(hostile):
    hostile.write_jobs("def sabotage():\n    from jobrunner.worker import hand\n    del hand.Hand.received\n")
    worker = hostile.consume()
    hostile.enqueue(("sabotage", {}))
    worker.wait("job.done")
    hostile.enqueue(("note", ["x"]))
    assert worker.end() == 8, str(worker)
    assert worker.named("thread.died")[0]["thread"].startswith("receiver")


def test_children_of_jobs_end_with_the_worker(hostile):
    worker = hostile.consume(start_new_session=True, stdin=subprocess.DEVNULL)
    hostile.enqueue(("child", {}))
    (note,) = wait_for(hostile.notes)
    worker.stop()
    wait_for(lambda: not is_running(int(note.split()[1])))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.long
@pytest.mark.parametrize("method", ["segfault", "os_exit"])
def test_what_kills_its_process_ends_in_the_dead_letters_alone(hostile, server_url, make_queue, method):
    """Two machines that share nothing but the queue, each with its supervisor; visibility timeout 10 s."""
    hostile.queue_url = make_queue(server_url, attempts_max=3)
    innocent = [("nap", {"seconds": 1, "name": str(n)}) for n in range(80 if method == "segfault" else 30)]
    hostile.enqueue(*innocent[:20], (method, {}), *innocent[20:])
    deadline = time.monotonic() + 150
    workers = [None, None]
    while hostile.counts() != (0, 0, 0) and time.monotonic() < deadline:
        for index, worker in enumerate(workers):
            if worker is None or worker.process.poll() is not None:
                workers[index] = hostile.consume("--visibility-timeout", 10, "--wait-seconds", 1)
        time.sleep(0.2)
    ended = {note.split()[1] for note in hostile.notes() if note.startswith("end")}
    assert ended == {str(n) for n in range(len(innocent))}
    assert sum(hostile.counts(dead=True)) == 1
    crashes = [worker for worker in hostile.workers if worker not in workers]
    assert {worker.process.returncode for worker in crashes} == ({-signal.SIGSEGV} if method == "segfault" else {0})


def test_unstarted_deliveries_go_to_who_can_start_them(hostile):
    """Thousands of no-ops, then 40 jobs of 30 s on two processes: nothing waits behind them."""
    workers = [hostile.consume("--threads", 20) for _ in range(2)]
    for worker in workers:
        worker.wait("worker.ready")
    hostile.enqueue(*[("noop", {})] * NOOPS, *[("nap", {"seconds": 30, "name": str(n)}) for n in range(40)])
    wait_for(lambda: sum(len(worker.named("job.done", method="noop")) for worker in workers) >= NOOPS, 100)
    done = time.monotonic()

    def starts():
        return [note for note in hostile.notes() if note.startswith("start")]

    wait_for(lambda: len(set(starts())) == 40, 60, starts)
    assert time.monotonic() - done < 15
    assert len(starts()) == 40, "each started once"
