"""What ends the process: each limit asked as the keeper asks it."""

import time
from types import SimpleNamespace

from jobrunner.errors import ExitCode
from jobrunner.message import Delivery
from jobrunner.worker.hand import Hand
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.lease import State
from jobrunner.worker.limits import JobLimit, LoopWatch, MemoryLimit, resident_mb


def test_memory_is_measured_now_and_compared_and_said_once(log, events):
    inbox = Inbox()
    assert 10 < resident_mb() < 2000
    MemoryLimit(limit_mb=1_000_000, inbox=inbox, log=log).check()
    full = MemoryLimit(limit_mb=1, inbox=inbox, log=log)
    full.check()
    full.check()
    assert inbox.next_within(0.01) is ExitCode.RECYCLED
    assert events.one("memory.limit")["limit_mb"] == 1


def test_what_a_job_waited_for_another_that_held_the_loop_is_not_of_its_own_time(log, events, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    hand = Hand(threads=1, async_jobs=9, visibility_seconds=60, attempts_max=5, clock=lambda: now)
    deliveries = [Delivery(message_id=name, receipt_handle="h", body="{}", attempt=1, sent_at=0) for name in "ab"]
    for lease in hand.received(deliveries, asked=0, held_since=now, receive_seconds=0):
        hand.start(lease, State.AWAITING)
    held = iter([0.0, 1.0, 3.0, 0.0, 0.0])
    coroutines = SimpleNamespace(
        held_seconds=lambda: next(held), holder=lambda: "a", thread_id=0, awaits=lambda _: False
    )
    watch = LoopWatch(hand=hand, coroutines=coroutines, log=log)
    cancelled = []
    awaiting = SimpleNamespace(stack_of=lambda _: "", cancel=lambda lease: cancelled.append(lease.delivery.message_id))
    limit = JobLimit(hand=hand, loop=watch, awaiting=awaiting, limit_seconds=4, inbox=Inbox(), log=log)
    for now in (100.0, 102.0, 104.0, 104.5, 106.0):  # noqa: B007 - the clock above reads it
        watch.check()
        limit.check()
    assert cancelled == ["a"]
    assert [line["message_id"] for line in events.named("job.timed_out")] == ["a"]


def test_one_that_began_while_the_loop_was_held_does_not_begin_later_than_now():
    now = 100.0
    hand = Hand(threads=1, visibility_seconds=60, attempts_max=5, clock=lambda: now)
    delivery = Delivery(message_id="a", receipt_handle="h", body="{}", attempt=1, sent_at=0)
    (lease,) = hand.received([delivery], asked=0, held_since=now, receive_seconds=0)
    hand.start(lease)
    now = 103.0
    hand.excuse(lease, since=90.0)
    assert lease.started_at == now
