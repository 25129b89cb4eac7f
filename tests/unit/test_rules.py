"""The small pure rules: backoff, demand, batching, leases, outages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import outcome
from jobrunner.errors import AccessDenied, QueueError
from jobrunner.message import Delivery
from jobrunner.queue.outage import LASTING_SECONDS_MAX, Outage
from jobrunner.worker import batches, demand
from jobrunner.worker.lease import Leases, State


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@given(st.integers(1, 10_000))
def test_backoffs_stay_in_their_ranges(attempt):
    assert 4 <= outcome.failed("failed", attempt).release_seconds <= 900
    assert 22 <= outcome.unknown_method(attempt).release_seconds <= 300
    assert 0 <= outcome.handed_back(attempt).release_seconds <= 60


def test_backoff_doubles_and_a_first_hand_back_is_at_once():
    assert [round(outcome.failed("failed", n).release_seconds / 5 / 2 ** (n - 1)) for n in range(1, 7)] == [1] * 6
    assert outcome.handed_back(1).release_seconds == 0


@pytest.mark.parametrize(
    ("job_seconds", "jobs_per_second", "receive_seconds", "expected"),
    [
        (0, 0, 0.01, 0),  # nothing known
        (1, 8, 0.01, 0),  # a second each: what waited here could start elsewhere
        (1, 18, 0.01, 0),  # the same, when all eight have just ended together
        (1, 8, 0.5, 0),  # slow jobs on a slow network: still nothing
        (0.001, 4, 0.01, 0),  # jobs that were fast until now
        (0.1, 80, 0.0115, 8),  # a tenth of a second each: all may end at once
        (0.33, 24, 0.0115, 2),  # a third of a second each: two start within a tenth
        (0.001, 1500, 0.012, 54),  # no-ops
    ],
)
def test_little_decides_what_is_taken_ahead(job_seconds, jobs_per_second, receive_seconds, expected):
    numbers = {"job_seconds": job_seconds, "jobs_per_second": jobs_per_second, "receive_seconds": receive_seconds}
    assert demand.ahead(threads=8, **numbers) == expected


@pytest.mark.parametrize(
    ("in_hand", "asked", "ahead", "expected"),
    [
        (0, 0, 0, 8),  # idle: as many as there are threads
        (8, 0, 0, 0),  # busy with slow jobs: nothing
        (7, 0, 0, 1),  # one thread free: one
        (0, 8, 0, 0),  # what is asked for counts as taken
        (20, 0, 54, 10),  # never more than SQS gives
        (55, 0, 54, 0),  # 7 would fit, but nobody is idle: wait until it is a full ten
        (8, 0, 3, 3),
        (10, 0, 3, 1),
        (11, 0, 3, 0),
    ],
)
def test_a_receive_is_full_unless_a_thread_is_idle(in_hand, asked, ahead, expected):
    assert demand.ask(threads=8, in_hand=in_hand, asked=asked, ahead=ahead) == expected


def test_one_long_poll_when_idle_and_more_only_while_they_come_back_full(clock):
    wants = demand.Demand(threads=40, clock=clock)
    assert wants.next_ask() == 10
    assert wants._ask() == 0, "the first is still out"
    wants.received(asked=10, count=10, seconds=0.01)
    assert wants.next_ask() == 10
    assert wants.next_ask() == 10, "the last was full: another may join"
    wants.received(asked=10, count=3, seconds=0.01)
    assert wants._ask() == 0


def test_demand_falls_when_fast_jobs_turn_slow(clock):
    wants = demand.Demand(threads=8, clock=clock)
    for _ in range(1000):
        wants.received(asked=0, count=1, seconds=0.012)
        wants.finished(0.001)
        clock.now += 0.001
    wants.received(asked=0, count=8, seconds=0.012)
    assert wants._ask() == 10
    clock.now += 3
    assert wants._ask() == 0


@pytest.mark.parametrize(
    ("count", "waited_seconds", "running", "due"),
    [(0, 99, 0, False), (10, 0, 5, True), (1, 0, 0, True), (1, 0, 3, False), (9, 0.11, 3, True)],
)
def test_a_batch_goes_when_full_or_waited_or_nothing_can_join(count, waited_seconds, running, due):
    assert batches.is_due(count=count, waited_seconds=waited_seconds, running=running) is due


def delivery(message_id="m", handle="h", attempt=1):
    return Delivery(message_id=message_id, receipt_handle=handle, body="{}", attempt=attempt, sent_at=0)


@pytest.fixture
def leases(clock):
    return Leases(visibility_seconds=30, clock=clock)


def test_a_message_in_hand_is_not_taken_twice_and_its_newest_handle_counts(leases, clock):
    (lease,) = leases.admit([delivery()], clock())
    leases.start(lease)
    leases.lose(lease, "h")
    clock.now += 31
    assert leases.admit([delivery(handle="newer")], clock()) == []
    assert lease.delivery.receipt_handle == "newer"
    assert not lease.lost
    assert leases.seconds_left(lease) == 30


def test_renewal_is_due_at_a_third_and_never_for_what_has_not_started(leases, clock):
    running, waiting = leases.admit([delivery("a"), delivery("b")], clock())
    leases.start(running)
    clock.now += 9.9
    assert leases.due() == []
    clock.now += 0.2
    assert leases.due() == [running]
    leases.renewed(running, "h", clock())
    assert leases.due() == []
    assert waiting in leases.unstarted_too_long()


def test_a_done_job_stays_renewed_until_its_delete_is_confirmed(leases, clock):
    (lease,) = leases.admit([delivery()], clock())
    leases.start(lease)
    assert leases.finish(lease)
    clock.now += 11
    assert leases.due() == [lease]
    leases.confirm([lease])
    assert leases.due() == []
    assert len(leases) == 0


def test_renewal_ends_before_the_twelve_hours_that_sqs_allows(leases, clock):
    (lease,) = leases.admit([delivery()], clock())
    leases.start(lease)
    clock.now += 43_200 - 25
    assert leases.renewal_seconds(lease) == 15
    clock.now += 16
    assert leases.due() == []


def test_a_renewal_of_an_older_handle_does_not_count(leases, clock):
    (lease,) = leases.admit([delivery()], clock())
    leases.admit([delivery(handle="newer")], clock())
    assert not leases.lose(lease, "h")
    leases.renewed(lease, "h", clock() + 5)
    assert lease.held_since == clock()


def test_what_was_given_up_is_neither_started_nor_finished(leases, clock):
    (lease,) = leases.admit([delivery()], clock())
    assert leases.give_up(lease, State.WAITING)
    assert not leases.start(lease)
    assert not leases.finish(lease)
    assert not leases.give_up(lease, State.WAITING, State.RUNNING)
    assert len(leases.admit([delivery()], clock())) == 1, "it may come again"


@pytest.fixture
def outage(log, clock):
    return Outage(log=log, clock=clock)


def test_an_outage_is_one_line_at_its_start_and_one_at_its_end(outage, clock, events):
    for _ in range(5):
        for action in ("receive", "delete"):
            outage.failed(action, QueueError("down"))
        clock.now += 4
    outage.succeeded("receive")
    assert not events.named("sqs.recovered"), "deletes still fail"
    outage.succeeded("delete")
    outage.succeeded("delete")
    assert len(events.named("sqs.outage")) == 1
    assert events.one("sqs.recovered")["seconds"] == 20


def test_what_works_goes_on_and_what_fails_shares_one_gate(outage, clock):
    outage.failed("receive", QueueError("down"))
    assert outage.seconds_to_wait("delete") == 0
    outage.failed("delete", QueueError("down"))
    assert outage.seconds_to_wait("receive") > 0
    clock.now += 5
    assert outage.seconds_to_wait("receive") == 0
    assert outage.seconds_to_wait("delete") > 0, "the turn is taken"


def test_tries_are_paced_and_never_further_apart_than_three_seconds(outage, clock):
    tries = 0
    outage.failed("receive", QueueError("down"))
    end = clock.now + 120
    while clock.now < end:
        if outage.seconds_to_wait("receive") == 0:
            tries += 1
            outage.failed("receive", QueueError("down"))
        assert outage.seconds_to_wait("receive") <= 3
        clock.now += 0.05
    assert 120 / 3 <= tries <= 120 / 2


def test_a_lasting_refusal_ends_the_process_after_its_time(outage, clock):
    outage.failed("receive", AccessDenied("no"))
    clock.now += LASTING_SECONDS_MAX - 1
    outage.failed("receive", AccessDenied("no"))
    clock.now += 2
    with pytest.raises(AccessDenied):
        outage.failed("receive", AccessDenied("no"))


def test_a_delete_that_nobody_waits_for_any_more_does_not_keep_an_outage_open(outage, events):
    outage.failed("receive", QueueError("down"))
    outage.failed("delete", QueueError("down"))
    outage.given_up("delete")
    outage.succeeded("receive")
    assert len(events.named("sqs.recovered")) == 1
    outage.failed("delete", QueueError("down"))
    outage.given_up("delete")
    assert outage.includes("delete"), "the only thing that fails: the next try tells"
