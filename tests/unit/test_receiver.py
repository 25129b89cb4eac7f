"""The receiver's loop: what it counts, and when."""

import threading
import time
from queue import Empty

import pytest
from fakes import FakeQueue
from servers import wait_for

from jobrunner.errors import ExitCode, QueueError
from jobrunner.message import Delivery
from jobrunner.queue.outage import Outage
from jobrunner.queue.paced import PacedQueue
from jobrunner.worker.hand import Hand
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.lease import State
from jobrunner.worker.receiver import Receiver


class Stopped(Exception):
    """Ends the loop that would never end."""


def delivery(number):
    return Delivery(message_id=f"m{number}", receipt_handle=f"h{number}", body="{}", attempt=1, sent_at=0.0)


class Settler:
    def seconds_to_hold(self):
        return 0.0


class Switch:
    def arm_first(self):
        """Do nothing."""


class Pool:
    """A worker that is faster than the receiver: ends the first delivery before `submit` returns."""

    def __init__(self, hand):
        self.hand = hand
        self.seen = []

    def submit(self, fresh):
        if fresh:
            self.seen.append((len(fresh), self.hand.busy()))
            self.hand.start(fresh[0])
            self.hand.finish(fresh[0])
            self.seen.append(self.hand.busy())


@pytest.fixture
def receiver(log, metrics):
    """Give a receiver whose queue answers as it is told, its pool and its inbox."""

    def make(*answers, **options):
        left = [*answers]
        queue = FakeQueue()
        queue.asked = []

        def receive(**how):
            queue.asked.append(how)
            if not left:
                raise Stopped
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        queue.receive = receive
        hand, inbox = Hand(threads=8, visibility_seconds=30, attempts_max=5), Inbox()
        pool = Pool(hand)
        outage = Outage(log=log, clock=iter(range(1000)).__next__)
        made = Receiver(
            queue=PacedQueue(queue=queue, outage=outage, metrics=metrics),
            wait_seconds=20,
            stop_when_empty=True,
            hand=hand,
            settler=Settler(),
            pool=pool,
            switch=Switch(),
            inbox=inbox,
            log=log,
        )
        with pytest.raises(Stopped):
            made.loop()
        pool.receiver = made
        return queue, pool, inbox

    return make


def test_what_came_is_counted_before_a_worker_can_end_it(receiver):
    _, pool, _ = receiver([delivery(1), delivery(2)])
    assert pool.seen == [(2, 2), 1]


def test_an_empty_probe_does_not_stand_for_an_empty_queue(receiver):
    """While SQS fails it is asked shortly, and a short poll may find nothing where there is something."""
    _, _, inbox = receiver(QueueError("down"), [])
    with pytest.raises(Exception, match=r"^$"):
        inbox.next_within(0.01)
    _, _, inbox = receiver(QueueError("down"), [], [])
    assert inbox.next_within(0.01) is ExitCode.STOPPED, "only the long poll after the probe"


def test_while_sqs_fails_it_is_asked_for_one_message(receiver):
    """An answer that is lost spends an attempt of each message in it."""
    queue, _, _ = receiver([], QueueError("lost"), QueueError("lost"), [])
    assert [(how["most"], how["probing"]) for how in queue.asked] == [
        (8, False),
        (8, False),
        (1, True),
        (1, True),
        (8, False),
    ]


def test_a_receive_out_for_three_times_its_longest_is_stuck(receiver, events):
    _, pool, inbox = receiver()
    for seconds in (119.0, 0.0, 121.0):
        with pytest.raises(Empty):
            inbox.next_within(0.01)
        pool.receiver._out_since = {1: time.monotonic() - seconds}
        pool.receiver.check()
    assert inbox.next_within(0.01) is ExitCode.POLL_STUCK
    assert events.one("receive.stuck")["out_seconds"] == 121


def test_a_message_in_hand_is_not_taken_twice_and_its_newest_handle_counts_here():
    hand = Hand(threads=8, visibility_seconds=30, attempts_max=5)
    (first,) = hand.received([delivery(1)], asked=0, held_since=1.0, receive_seconds=0.1)
    again = Delivery(message_id="m1", receipt_handle="new", body="{}", attempt=2, sent_at=0.0)
    assert hand.received([again], asked=0, held_since=2.0, receive_seconds=0.1) == []
    assert (first.delivery.receipt_handle, first.held_since, len(hand)) == ("new", 2.0, 1)


def test_counts_stay_right_whatever_threads_do():
    """What is in hand is counted once, by its owner: it ends at nothing."""
    hand = Hand(threads=8, visibility_seconds=30, attempts_max=5)

    def worker(number):
        for n in range(300):
            leases = hand.received(
                [delivery(f"{number}-{n}")], asked=0, held_since=hand.now() - 5 * (n % 2), receive_seconds=0.0
            )
            hand.confirm(hand.give_up_unstarted())
            for lease in leases:
                if hand.start(lease):
                    (hand.finish if n % 3 else hand.give_up)(lease)
                    hand.confirm([lease])

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (hand.busy(), len(hand)) == (0, 0)
    assert hand._counts[:-1] == [0] * (len(State) - 1), "but for those that are gone"


def test_nothing_is_taken_ahead_where_attempts_are_few():
    """What waits here and cannot start costs an attempt."""
    clock = iter(n / 1000 for n in range(10**6)).__next__
    for attempts_max, takes_ahead in ((1, False), (3, False), (4, True), (None, True)):
        hand = Hand(threads=2, visibility_seconds=30, attempts_max=attempts_max, clock=clock)
        for n in range(200):
            (lease,) = hand.received([delivery(n)], asked=0, held_since=0.0, receive_seconds=0.02)
            hand.start(lease)
            hand.finish(lease)
            hand.confirm([lease])
        assert (hand.next_ask() > 2) is takes_ahead, attempts_max


@pytest.mark.parametrize("end", ["finish", "give_up", "confirm"])
def test_whatever_way_a_job_ends_a_receiver_that_waits_is_woken(end):
    """A last attempt that its own process has deleted is only confirmed."""
    hand = Hand(threads=1, visibility_seconds=30, attempts_max=5)
    (lease,) = hand.received([delivery(1)], asked=0, held_since=hand.now(), receive_seconds=0.1)
    hand.start(lease, State.ALONE)
    asked = []
    receiver = threading.Thread(target=lambda: asked.append(hand.next_ask()), daemon=True)
    receiver.start()
    wait_for(lambda: hand._waiting == 1)
    hand.confirm([lease]) if end == "confirm" else getattr(hand, end)(lease)
    receiver.join(10)
    assert len(asked) == 1


def test_what_comes_again_before_its_release_is_answered_is_a_delivery_of_its_own():
    """Swallowed, nobody would run it until its visibility timeout."""
    hand = Hand(threads=8, visibility_seconds=30, attempts_max=5)
    (first,) = hand.received([delivery(1)], asked=0, held_since=1.0, receive_seconds=0.1)
    hand.give_up_all(State.WAITING)
    (again,) = hand.received([delivery(1)], asked=0, held_since=2.0, receive_seconds=0.1)
    hand.confirm([first])
    assert (len(hand), hand.busy(), hand.start(again)) == (1, 1, True)
