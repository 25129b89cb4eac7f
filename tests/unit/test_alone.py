"""The parent of a last attempt: what it makes of its child's end."""

import errno
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from servers import wait_for

from jobrunner.message import Delivery
from jobrunner.outcome import DONE
from jobrunner.queue import requests
from jobrunner.settings import Settings
from jobrunner.worker import alone, last_attempt, start
from jobrunner.worker.alone import Alone
from jobrunner.worker.hand import Hand
from jobrunner.worker.last_attempt import Order
from jobrunner.worker.lease import State

BEGIN = "import json, os, sys; order = json.load(sys.stdin); to = order['report_to'];"
STARTED = """os.write(to, b'{"started": true}\\n');"""
FAILED = """os.write(to, b'{"ended": "failed", "release_seconds": 7}\\n');"""
DONE_ONLY = """os.write(to, b'{"ended": "done", "release_seconds": null}\\n');"""
DELETED = f"{DONE_ONLY}os._exit({last_attempt.DELETED})"


class Settler:
    def __init__(self):
        self.settled = []

    def settle(self, lease, outcome):
        self.settled.append((lease.state, outcome))
        self.hand.confirm([lease])


class Execution:
    def __init__(self):
        self.ran = []

    def prepare(self, delivery):
        return delivery

    def run(self, delivery):
        self.ran.append(delivery.message_id)
        return DONE


@pytest.fixture
def house(monkeypatch, log, tmp_path):
    """Everything around the parent: `run` gives a delivery to a child that does as it is told."""
    hand = Hand(threads=8, visibility_seconds=30, attempts_max=3)
    settler, execution = Settler(), Execution()
    settler.hand = hand
    settings = Settings(queue_url="http://127.0.0.1:1/0/q", app_dir=tmp_path)
    parent = Alone(
        order=Order(settings=settings, attempts_max=3, visibility_seconds=30),
        output=os.dup(1),
        execution=execution,
        hand=hand,
        settler=settler,
        log=log,
    )

    def admit(name):
        delivery = Delivery(message_id=name, receipt_handle="h", body='{"method":"x"}', attempt=3, sent_at=0.0)
        return hand.received([delivery], asked=0, held_since=hand.now(), receive_seconds=0.1)[0]

    def run(child, name=None):
        monkeypatch.setattr(alone, "CHILD", (sys.executable, "-c", child))
        lease = hand._leases[name] if name else admit("m")
        parent.run(lease)
        return lease

    return SimpleNamespace(
        run=run, hand=hand, settler=settler, execution=execution, parent=parent, admit=admit, folder=tmp_path
    )


@pytest.mark.parametrize(("end", "says"), [("os._exit(0)", "exit code 0"), ("os.kill(os.getpid(), 9)", "SIGKILL")])
def test_a_job_that_ends_its_process_has_failed_whatever_the_code(house, events, end, says):
    house.run(f"{BEGIN}{STARTED}{end}")
    ((_, outcome),) = house.settler.settled
    assert (outcome.name, outcome.deletes) == ("died", False)
    assert says in events.one("job.failed")["error"]


def test_a_child_that_deleted_its_message_leaves_nothing_to_do(house, events):
    lease = house.run(f"{BEGIN}{STARTED}{DELETED}")
    assert (lease.state, house.settler.settled, events) == (State.GONE, [], [])


def test_what_the_child_could_not_delete_or_did_not_release_is_settled_here(house):
    house.run(f"{BEGIN}{STARTED}{DONE_ONLY}")
    house.run(f"{BEGIN}{STARTED}{FAILED}")
    done, failed = (outcome for _, outcome in house.settler.settled)
    assert (done.name, done.deletes) == ("done", True)
    assert (failed.name, failed.release_seconds) == ("failed", 7)


def test_a_child_whose_job_closed_the_pipe_to_us_says_by_its_code_that_it_deleted(house, events):
    lease = house.run(f"{BEGIN}{STARTED}os._exit({last_attempt.DELETED})")
    assert (lease.state, house.settler.settled, events) == (State.GONE, [], [])


@pytest.mark.parametrize(
    "report", ["rubbish", "5", "null", "[1]", '{"ended":"done"}', '{"ended":1,"release_seconds":1}']
)
def test_a_report_that_is_none_is_no_error_of_ours(house, report):
    house.run(f"{BEGIN}{STARTED}os.write(to, b'{report}\\n')")
    assert [outcome.name for _, outcome in house.settler.settled] == ["died"]


@pytest.mark.parametrize("child", [f"{BEGIN}sys.exit(3)", "raise SystemExit(1)"], ids=["before it starts", "at once"])
def test_a_child_that_did_not_start_the_job_is_not_the_jobs_failure(house, events, child):
    """The job runs here: it has no other attempt."""
    house.run(child)
    assert house.execution.ran == ["m"]
    assert [outcome for _, outcome in house.settler.settled] == [DONE]
    assert "runs beside the others" in events.one("alone.not_started")["effect"]


@pytest.mark.parametrize(
    ("place", "name", "error"),
    [(os, "pipe", errno.EMFILE), (subprocess, "Popen", errno.ENOMEM), (None, "", errno.ENOENT)],
)
def test_what_cannot_be_started_at_all_runs_here(house, events, monkeypatch, place, name, error):
    """No descriptor left, no memory, the folder swapped by a deploy."""

    def refuse(*_words, **_named):
        raise OSError(error, os.strerror(error))

    if place:
        monkeypatch.setattr(place, name, refuse)
    else:
        house.folder.rmdir()
    house.run(BEGIN)
    assert house.execution.ran == ["m"]
    assert os.strerror(error) in events.one("alone.not_started")["error"]


def test_two_at_a_time_run_alone_and_the_others_wait_under_their_lease(house, monkeypatch):
    gate = house.folder / "gate"
    waits = f"import time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)\n{DELETED}"
    monkeypatch.setattr(alone, "CHILD", (sys.executable, "-c", f"{BEGIN}{STARTED}\n{waits}"))
    leases = [house.admit(f"m{n}") for n in range(5)]
    threads = [threading.Thread(target=house.parent.run, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    wait_for(lambda: house.hand.count(State.ALONE) == 2)
    assert house.hand.count(State.WAITING) == 3
    gate.touch()
    for thread in threads:
        thread.join(20)
    assert len(house.hand) == 0


def test_an_order_arrives_as_it_was_written_whatever_is_set(house, tmp_path):
    settings = Settings(
        queue_url="http://127.0.0.1:1/0/q",
        app_dir=tmp_path,
        around="web.app:app",
        job_timeout_seconds=7,
        visibility_timeout_seconds=60,
        max_memory_mb=100,
        stop_when_empty=True,
        log_level="debug",
        metrics="emf",
    )
    blank = Order(settings=settings, attempts_max=3, visibility_seconds=30)
    order = blank.of(house.admit("m"), report_to=7)
    assert Order.unpack(order.pack()) == order


def test_the_workers_order_has_no_status_file(monkeypatch, tmp_path):
    """The child writes none, and a path is not what JSON gives back."""
    assert (
        start._order(
            Settings(queue_url="http://127.0.0.1:1/0/q", app_dir=tmp_path, status_file=tmp_path / "s.json"),
            requests.QueueAttributes({"VisibilityTimeout": "30"}),
            30,
        ).settings.status_file
        is None
    )


def test_a_body_of_a_megabyte_is_whole_in_the_child(house, events):
    child = f"{BEGIN}{STARTED}\nassert len(order['delivery']['body']) == 1_000_000\n{DELETED}"
    delivery = Delivery(message_id="big", receipt_handle="h", body="x" * 1_000_000, attempt=3, sent_at=0.0)
    house.hand.received([delivery], asked=0, held_since=house.hand.now(), receive_seconds=0.1)
    house.run(child, "big")
    assert (house.settler.settled, events) == ([], [])
