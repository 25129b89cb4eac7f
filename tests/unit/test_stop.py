"""The way out: its order, without a process that ends."""

from queue import Empty

import pytest

from jobrunner.errors import ExitCode
from jobrunner.message import Delivery
from jobrunner.worker import stop
from jobrunner.worker.hand import Hand
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.lease import State
from jobrunner.worker.stop import WayOut


class Ended(BaseException):
    """Stands for the end of the process."""


class Everything:
    """Stands for the rooms that the way out tells what to do; notes what it was told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        def note(*_words, **_named):
            self.told.append(name)
            return 0

        return note


@pytest.fixture
def way_out(monkeypatch, log, metrics):
    """Give a way out and what is in hand: a job that runs, and a last attempt in a process of its own."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(stop.signals, "end", end)
    hand = Hand(threads=8, visibility_seconds=30, attempts_max=10)
    deliveries = [
        Delivery(message_id=f"m{attempt}", receipt_handle="h", body="{}", attempt=attempt, sent_at=0.0)
        for attempt in (9, 10)
    ]
    leases = hand.received(deliveries, asked=0, held_since=hand.now(), receive_seconds=0.1)
    for lease in leases:
        hand.start(lease, State.ALONE if lease is leases[1] else State.RUNNING)
    rooms, inbox = Everything(), Inbox()
    way = WayOut(
        inbox=inbox,
        recycle_seconds=60,
        receiver=rooms,
        hand=hand,
        settler=rooms,
        dump=rooms.dump,
        switch=rooms,
        status=None,
        metrics=metrics,
        spans=None,
        log=log,
    )
    return way, rooms, inbox, hand, leases


def test_a_stop_hands_back_what_runs_here_and_leaves_the_last_attempts_alone(way_out, monkeypatch, events):
    """They would become dead letters: their own processes see to them."""
    way, rooms, _, _, leases = way_out
    monkeypatch.setattr(stop, "GRACE_SECONDS", 0)
    with pytest.raises(Ended):
        way.take(ExitCode.STOPPED)
    assert [lease.state for lease in leases] == [State.RELEASING, State.ALONE]
    assert rooms.told.count("release") == 1
    assert (events.one("worker.stopped")["handed_back_count"], events.one("worker.stopped")["alone_count"]) == (1, 1)


def test_what_has_one_attempt_left_is_hidden_from_our_own_last_poll(way_out, monkeypatch):
    way, rooms, _, _, _ = way_out
    monkeypatch.setattr(stop, "GRACE_SECONDS", 0)
    released = []
    rooms.poll_seconds_left = lambda: 17.2
    rooms.release = lambda _lease, outcome: released.append(outcome)
    with pytest.raises(Ended):
        way.take(ExitCode.STOPPED)
    assert [outcome.release_seconds >= 18 for outcome in released] == [True]


def test_a_last_attempt_that_waits_for_its_turn_is_sent_anew_and_not_handed_back(way_out, monkeypatch):
    way, rooms, _, hand, _ = way_out
    monkeypatch.setattr(stop, "GRACE_SECONDS", 0)
    waiting = Delivery(message_id="w", receipt_handle="h", body="{}", attempt=10, sent_at=0.0)
    turn = hand.received([waiting], asked=0, held_since=hand.now(), receive_seconds=0.1)
    sent = []
    rooms.send_anew = sent.append
    rooms.drain = lambda _deadline: rooms.told.append(f"drain after {len(sent)}")
    with pytest.raises(Ended):
        way.take(ExitCode.STOPPED)
    assert (sent, rooms.told.count("release")) == ([turn], 1)
    assert "drain after 1" in rooms.told


def test_sigusr1_while_stopping_still_shows_where_everything_stands(way_out):
    way, rooms, inbox, _, _ = way_out
    inbox.ask(None)
    inbox.ask(ExitCode.STOPPED)
    with pytest.raises(Ended) as ended:
        way.take(ExitCode.RECYCLED)
    assert ended.value.args == (ExitCode.STOPPED,)
    assert "dump" in rooms.told


def test_a_recycle_waits_for_last_attempts_and_keeps_those_that_wait_for_their_turn(way_out, monkeypatch):
    """Nothing is wrong: a last attempt that is handed back unstarted would be a dead letter."""
    way, rooms, inbox, hand, leases = way_out
    waiting = Delivery(message_id="w", receipt_handle="h", body="{}", attempt=10, sent_at=0.0)
    (turn,) = hand.received([waiting], asked=0, held_since=hand.now(), receive_seconds=0.1)
    hand.finish(leases[0])
    seen = []

    def look(_seconds):
        seen.append((turn.state, leases[1].state))
        if len(seen) == 1:
            hand.start(turn, State.ALONE)
        elif len(seen) == 2:
            hand.confirm([turn])
        else:
            hand.confirm([leases[1]])
        raise Empty

    monkeypatch.setattr(inbox, "next_within", look)
    with pytest.raises(Ended) as ended:
        way.take(ExitCode.RECYCLED)
    assert (ended.value.args, len(seen), rooms.told.count("release")) == ((ExitCode.RECYCLED,), 3, 0)
