"""When ECS is asked to protect the task, on a clock of the test's own."""

import pytest

from jobrunner.errors import JobrunnerError
from jobrunner.message import Call, Delivery, encode
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import State
from jobrunner.worker.protection import TaskProtection


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def hand(clock):
    hand = Hand(threads=1, visibility_seconds=60, attempts_max=10, clock=clock)
    body = encode(Call(method="long"))
    delivery = Delivery(message_id="m", receipt_handle="h", body=body, attempt=1, sent_at=0)
    (lease,) = hand.received([delivery], asked=1, held_since=clock.now, receive_seconds=0.1)
    hand.start(lease)
    return hand


def test_it_is_renewed_half_way_and_never_taken_back(hand, clock, log, events):
    asked = []
    protection = TaskProtection(hand=hand, after_seconds=60, protect=asked.append, log=log)
    for now in range(1000, 2300, 10):
        clock.now = now
        protection.renew()
    assert asked == [10] * 5, "at 60 s, then every five minutes"
    assert events.one("task.protected")["method"] == "long"
    hand.finish(*hand.all_in(State.RUNNING))
    clock.now = 4000
    protection.renew()
    assert asked == [10] * 5


def test_a_refusal_is_tried_again_after_a_while_and_not_at_each_tick(hand, clock, log):
    asked = []

    def refuse(minutes):
        asked.append(minutes)
        raise JobrunnerError("no")

    protection = TaskProtection(hand=hand, after_seconds=1, protect=refuse, log=log)
    refused = 0
    for tick in range(60):
        clock.now = 1002 + tick / 2
        try:
            protection.renew()
        except JobrunnerError:
            refused += 1
    assert refused == len(asked) == 2
