"""The small pure rules: backoff, demand, batching, leases, outages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import outcome
from jobrunner.errors import AccessDenied, ExitCode, OutageTooLong, QueueError
from jobrunner.message import Delivery
from jobrunner.queue.outage import LASTING_SECONDS_MAX, Outage
from jobrunner.worker import batches, demand
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import State


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_on_the_last_attempt_there_is_nothing_to_wait_for():
    for given_up in (outcome.failed("failed", 3, 3), outcome.unknown_method(3, 3)):
        assert (given_up.release_seconds, given_up.retry_seconds, given_up.given_up) == (0, None, True)
    assert outcome.failed("failed", 2, 3).retry_seconds > 0


@given(st.integers(1, 10_000))
def test_backoffs_stay_in_their_ranges(attempt):
    assert 4 <= outcome.failed("failed", attempt, None).release_seconds <= 900
    assert 22 <= outcome.unknown_method(attempt, None).release_seconds <= 300
    assert 0 <= outcome.handed_back(attempt).release_seconds <= 60


def test_backoff_doubles_and_a_first_hand_back_is_at_once():
    assert [round(outcome.failed("failed", n, None).release_seconds / 5 / 2 ** (n - 1)) for n in range(1, 7)] == [1] * 6
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


@pytest.mark.parametrize(
    ("share", "awaiting", "room", "in_hand", "asked", "expected"),
    [
        (0.0, 0, 0, 0, 0, 8),  # no `async def` job yet: as without them
        (1.0, 0, 100, 0, 0, 10),  # all are: as many as there is room for
        (1.0, 0, 100, 0, 90, 10),
        (1.0, 0, 100, 0, 95, 5),
        (1.0, 100, 0, 0, 0, 0),  # no room
        (1.0, 96, 4, 0, 0, 0),  # busy: wait for a twentieth
        (1.0, 990, 10, 0, 0, 10),
        (1.0, 5, 5, 0, 0, 5),  # with few it starts at once
        (0.75, 0, 100, 0, 0, 10),  # of 32 eight would be plain
        (0.75, 20, 80, 7, 0, 4),  # one thread is free: of four one is plain
        (0.75, 20, 80, 8, 0, 0),  # none is
        (0.25, 100, 0, 0, 0, 0),  # any that comes may be one too many
        (0.25, 99, 1, 0, 0, 4),
    ],
)
def test_as_many_as_can_start_if_the_next_jobs_are_like_the_last(share, awaiting, room, in_hand, asked, expected):
    kinds = {"share": share, "awaiting": awaiting, "room": room}
    assert demand.ask(threads=8, in_hand=in_hand, asked=asked, ahead=0, **kinds) == expected


def test_where_attempts_are_few_no_more_comes_than_surely_starts():
    kinds = {"share": 1.0, "awaiting": 0, "room": 100, "may_err": False}
    assert demand.ask(threads=8, in_hand=0, asked=0, ahead=0, **kinds) == 8
    assert demand.ask(threads=8, in_hand=8, asked=0, ahead=0, **kinds) == 0


def test_one_long_poll_when_idle_and_more_only_while_they_come_back_full(clock):
    hand = Hand(threads=40, visibility_seconds=30, attempts_max=None, clock=clock)

    def receive(count, asked):
        come = [delivery(f"{clock.now}-{n}") for n in range(count)]
        clock.now += 0.01
        return hand.received(come, asked=asked, held_since=clock(), receive_seconds=0.01)

    assert hand.next_ask() == 10
    assert hand._ask() == 0, "the first is still out"
    receive(10, asked=10)
    assert hand.next_ask() == 10
    assert hand.next_ask() == 10, "the last was full: another may join"
    receive(3, asked=10)
    assert hand._ask() == 0


def test_demand_falls_when_fast_jobs_turn_slow(clock):
    hand = Hand(threads=8, visibility_seconds=30, attempts_max=None, clock=clock)
    for n in range(1000):
        (lease,) = hand.received([delivery(f"fast{n}")], asked=0, held_since=clock(), receive_seconds=0.012)
        hand.start(lease)
        clock.now += 0.001
        hand.finish(lease)
        hand.confirm([lease])
    slow = [delivery(f"slow{n}") for n in range(8)]
    for lease in hand.received(slow, asked=0, held_since=clock(), receive_seconds=0.012):
        hand.start(lease)
    assert hand._ask() == 10
    clock.now += 3
    assert hand._ask() == 0


@pytest.mark.parametrize(
    ("count", "waited_seconds", "running", "due"),
    [(0, 99, 0, False), (10, 0, 5, True), (1, 0, 0, True), (1, 0, 3, False), (9, 0.11, 3, True)],
)
def test_a_batch_goes_when_full_or_waited_or_nothing_can_join(count, waited_seconds, running, due):
    assert batches.is_due(count=count, waited_seconds=waited_seconds, running=running) is due


def delivery(message_id="m", handle="h", attempt=1):
    return Delivery(message_id=message_id, receipt_handle=handle, body="{}", attempt=attempt, sent_at=0)


@pytest.fixture
def hand(clock):
    return Hand(threads=8, visibility_seconds=30, attempts_max=5, clock=clock)


@pytest.fixture
def admit(hand, clock):
    return lambda *deliveries: hand.received(deliveries, asked=0, held_since=clock(), receive_seconds=0.01)


def test_a_message_in_hand_is_not_taken_twice_and_its_newest_handle_counts(hand, admit, clock):
    (lease,) = admit(delivery())
    hand.start(lease)
    hand.lose(lease, "h")
    clock.now += 20
    assert admit(delivery(handle="newer")) == []
    assert (lease.delivery.receipt_handle, lease.lost) == ("newer", False)
    assert lease.ends_at() == clock() + 30


def test_renewal_is_due_at_a_third_and_never_for_what_has_not_started(hand, admit, clock):
    running, waiting = admit(delivery("a"), delivery("b"))
    hand.start(running)
    clock.now += 9
    assert hand.due() == []
    clock.now += 2
    assert hand.due() == [running]
    assert hand.due() == [], "once"
    hand.renewed(running, "h", clock())
    assert hand.due() == []
    assert hand.give_up_unstarted() == [waiting]


def test_a_done_job_stays_renewed_until_its_delete_is_confirmed(hand, admit, clock):
    (lease,) = admit(delivery())
    hand.start(lease)
    assert hand.finish(lease)
    clock.now += 11
    assert hand.due() == [lease]
    hand.not_renewed(lease)
    hand.confirm([lease])
    assert hand.due() == []
    assert len(hand) == 0


def test_renewal_ends_before_the_twelve_hours_that_sqs_allows(hand, admit, clock):
    (lease,) = admit(delivery())
    hand.start(lease)
    clock.now += 43_200 - 25
    assert lease.renewal_seconds(clock()) == 15
    clock.now += 16
    assert hand.due() == []


def test_a_renewal_of_an_older_handle_does_not_count(hand, admit, clock):
    (lease,) = admit(delivery())
    admit(delivery(handle="newer"))
    assert not hand.lose(lease, "h")
    hand.renewed(lease, "h", clock() + 5)
    assert lease.held_since == clock()


def test_what_was_given_up_is_neither_started_nor_finished(hand, admit):
    (lease,) = admit(delivery())
    assert hand.give_up_all(State.WAITING) == [lease]
    assert not hand.start(lease)
    assert not hand.finish(lease)
    assert hand.give_up_all(State.WAITING, State.RUNNING) == []
    hand.confirm([lease])
    assert len(admit(delivery())) == 1, "it may come again"


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
    assert events.one("sqs.recovered")["outage_seconds"] == 20


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


def test_a_lasting_refusal_ends_the_process_after_its_time_with_its_code(outage, clock):
    outage.failed("receive", AccessDenied("no"))
    clock.now += LASTING_SECONDS_MAX - 1
    outage.failed("receive", AccessDenied("no"))
    clock.now += 2
    with pytest.raises(OutageTooLong) as ended:
        outage.failed("receive", AccessDenied("no"))
    assert ended.value.exit_code == ExitCode.ACCESS


def test_the_patience_with_a_refusal_is_not_spent_by_an_outage_of_another_kind(outage, clock):
    """The first expired token after a long 503 is the first of its kind."""
    outage.failed("receive", QueueError("503"))
    clock.now += 10 * LASTING_SECONDS_MAX
    outage.failed("receive", AccessDenied("expired"))
    clock.now += LASTING_SECONDS_MAX - 1
    outage.failed("receive", QueueError("503"))
    clock.now += 2
    outage.failed("receive", AccessDenied("expired"))


def test_a_job_may_say_when_it_is_tried_again_or_that_it_is_not():
    assert [outcome.steered("failed", 1, 3, wanted).release_seconds for wanted in (0, 90.5, -1, 1e9)] == [
        0,
        91,
        0,
        43_200,
    ]
    assert outcome.steered("failed", 3, 3, 5).given_up, "there is no other attempt"
    final = outcome.steered("failed", 1, 3, None)
    assert (final.retry_seconds, 3 < final.release_seconds <= 5) == (None, True), "where it cannot be buried"
    assert final.reason


def test_beyond_what_was_the_last_attempt_nothing_is_known_of_a_last_one():
    """The queue's own setting was changed while the worker runs."""
    assert outcome.failed("failed", 4, 3).release_seconds > 3
