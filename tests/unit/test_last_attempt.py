"""A last attempt in its own process: what it does with and without a parent, without a process."""

import os
import time
from types import SimpleNamespace

import pytest
from fakes import BUSY, GONE, FakeQueue

from jobrunner.message import Delivery
from jobrunner.outcome import DONE, failed
from jobrunner.settings import Settings
from jobrunner.worker import last_attempt
from jobrunner.worker.last_attempt import LastAttempt, Order


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def attempt(monkeypatch, tmp_path, log, metrics):
    """Give a last attempt whose job ends as told; `report` gives what the parent was told."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(last_attempt.signals, "end", end)
    monkeypatch.setattr(last_attempt, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(LastAttempt, "_watch", lambda _: None)  # it would go on for ever

    def make(*, outcome=DONE, parent=None, lease_age_seconds=0.0, job_timeout_seconds=0, visibility_seconds=10):
        order = Order(
            settings=Settings(
                queue_url="http://127.0.0.1:1/0/q", app_dir=tmp_path, job_timeout_seconds=job_timeout_seconds
            ),
            attempts_max=3,
            visibility_seconds=visibility_seconds,
            delivery=Delivery(message_id="m", receipt_handle="h", body="{}", attempt=3, sent_at=0.0),
            held_since=time.monotonic() - lease_age_seconds,
            parent=os.getppid() if parent is None else parent,
            report_to=writer,
        )
        execution = SimpleNamespace(prepare=lambda _: None, run=lambda _: outcome)
        made = LastAttempt(
            order=order, queue=FakeQueue(), execution=execution, coroutines=None, metrics=metrics, spans=None, log=log
        )
        made.report = lambda: os.read(reader, 4096).decode().splitlines()
        return made

    yield make
    os.close(reader)
    os.close(writer)


def test_it_deletes_by_itself_and_says_so(attempt):
    one = attempt()
    with pytest.raises(Ended) as end:
        one.run()
    assert one._queue.deleted == ["h"]
    started, ended = one.report()
    assert '"ended": "done"' in ended
    assert "started" in started
    assert end.value.args == (last_attempt.DELETED,)


def test_what_it_cannot_delete_it_leaves_to_its_parent(attempt):
    one = attempt(visibility_seconds=0)
    one._queue.down = True
    with pytest.raises(Ended) as end:
        one.run()
    assert (one._queue.requests >= 1, end.value.args) == (True, (0,))
    assert '"ended": "done"' in one.report()[1]


def test_it_tries_to_delete_for_as_long_as_its_lease_holds_before_its_parent_is_told(attempt):
    """A parent that is told to stop tries once, and a job that is done would be a dead letter."""
    one = attempt()
    refusals = iter([{0: BUSY}, {0: BUSY}, {}])
    one._queue.delete = lambda _: next(refusals)
    with pytest.raises(Ended) as end:
        one.run()
    assert end.value.args == (last_attempt.DELETED,)


def test_it_writes_no_report_into_what_the_job_has_made_of_its_number(attempt, tmp_path):
    """Libraries that make daemons close every descriptor; the next file is given the number."""
    one = attempt()
    one._execution.run = lambda _: (
        os.dup2(os.open(tmp_path / "mine", os.O_CREAT | os.O_WRONLY), one._order.report_to) and DONE
    )
    with pytest.raises(Ended) as end:
        one.run()
    assert ((tmp_path / "mine").read_text(), end.value.args) == ("", (last_attempt.DELETED,))


def test_a_failure_is_its_parents_to_release(attempt):
    one = attempt(outcome=failed("failed", 3, 3))
    with pytest.raises(Ended):
        one.run()
    assert one._queue.requests == 0
    assert '"ended": "failed"' in one.report()[1]


def test_without_a_parent_it_settles_by_itself(attempt, events):
    one = attempt(outcome=failed("failed", 3, 3), parent=1 if os.getppid() != 1 else 2)
    with pytest.raises(Ended):
        one.run()
    assert [handle for handle, _ in one._queue.released] == ["h"]
    again = attempt(parent=one._order.parent, lease_age_seconds=9)
    refusals = iter([{0: BUSY}, {0: BUSY}, {}])
    again._queue.delete = lambda _: next(refusals)
    with pytest.raises(Ended):
        again.run()
    assert (next(refusals, "all tried"), events) == ("all tried", [])


def test_without_a_parent_it_does_not_start_on_a_lease_that_has_ended(attempt):
    one = attempt(parent=1 if os.getppid() != 1 else 2, lease_age_seconds=11)
    with pytest.raises(SystemExit, match="the lease has ended"):
        one.run()
    assert one._queue.requests == 0


@pytest.mark.parametrize(("refusal", "lost"), [(GONE, True), (BUSY, False)])
def test_only_a_handle_that_is_gone_ends_its_renewals(attempt, refusal, lost):
    one = attempt(parent=1)
    one._queue.refuse = {"h": refusal}
    one._renew(time.monotonic())
    assert one._lease.lost is lost
