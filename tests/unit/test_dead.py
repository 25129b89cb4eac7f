"""Dead letters: what a walk hides and shows again, what is ours to touch, and what is said when SQS will not."""

import dataclasses
import time

import click
import pytest

from jobrunner.cli.dead import _progress
from jobrunner.errors import QueueError, SettingsError
from jobrunner.message import decode
from jobrunner.operate import dead as room
from jobrunner.operate.dead import DeadLetters
from jobrunner.operate.queues import DeadLetter, OperatedQueue
from jobrunner.queue.requests import Refusal

REFUSED = Refusal("InvalidMessageContents", sender_fault=True, message="bad characters")


def letter(number, **more):
    return DeadLetter(
        message_id=f"m{number}", receipt_handle=f"h{number}", body='{"method":"a.b"}', sent_at=0.0, receives=3, **more
    )


class FakeQueue:
    """A queue that gives its letters, ten at a time, until it is told to give them anew."""

    name = "jobs"
    clock_skew_seconds = 0.0

    def __init__(self, letters=()):
        self.letters = list(letters)
        self.sent, self.deleted, self.shown, self.hidden = [], [], [], {}
        self.down_after = None
        self.refuse = set()
        self.undeletable = set()
        self.source_urls = ["jobs"]
        self.states = []
        self.move_error = None

    def receive(self, *, hidden_seconds, **_):
        self.hidden_seconds = hidden_seconds
        if self.down_after == len(self.hidden):
            raise QueueError("SQS did not answer")
        batch, self.letters = self.letters[:10], self.letters[10:]
        self.hidden |= {letter.receipt_handle: letter for letter in batch}
        return batch

    def send(self, letters):
        self.sent += [each for each in letters if each.message_id not in self.refuse]
        return {index: REFUSED for index, each in enumerate(letters) if each.message_id in self.refuse}

    def delete(self, handles):
        refused = {index: REFUSED for index, handle in enumerate(handles) if handle in self.undeletable}
        self.deleted += [handle for handle in handles if handle not in self.undeletable]
        return refused

    def change_visibility(self, changes):
        if self.down_after is not None:
            raise QueueError("SQS did not answer")
        self.shown += changes
        self.letters += [self.hidden.pop(handle) for handle, _ in changes]
        return {}

    def sources(self):
        return self.source_urls

    arn = "arn:aws:sqs:r:1:jobs"

    def length(self):
        return len(self.letters)

    def start_move(self, _arn, destination_arn):
        assert destination_arn == self.arn
        if self.move_error:
            raise self.move_error

    def move_state(self, _arn):
        return self.states.pop(0)


@pytest.fixture
def dead_letters():
    def make(*letters):
        queue, dead = FakeQueue(), FakeQueue(letters)
        return DeadLetters(queue=queue, dead=dead), queue, dead

    return make


def nothing(_count):
    """Stand for a progress bar."""


def test_what_is_looked_at_is_shown_again(dead_letters):
    letters, _, dead = dead_letters(*map(letter, range(25)))
    (group,) = letters.groups(None)
    assert len(group.ids) == 25
    assert sorted(dead.shown) == sorted((f"h{n}", 0) for n in range(25))


def test_a_walk_that_fails_says_for_how_long_it_hides_what_it_saw(dead_letters):
    letters, _, dead = dead_letters(*map(letter, range(25)))
    dead.down_after = 20
    with pytest.raises(QueueError, match="SQS did not answer. 20 of them stay hidden for up to 30 s"):
        letters.groups(None)


def test_a_search_that_ends_early_shows_again_what_it_hid(dead_letters):
    letters, _, dead = dead_letters(*map(letter, range(25)))
    assert letters.find("m3").message_id == "m3"
    assert len(dead.shown) == 10


def test_each_is_sent_before_it_is_deleted_and_only_what_was_sent(dead_letters):
    letters, queue, dead = dead_letters(*map(letter, range(12)))
    queue.refuse = {"m4"}
    with pytest.raises(QueueError, match="11 were sent again; SQS refused 1, which are still here: m4: bad characters"):
        letters.retry(lambda _: True, nothing)
    assert len(queue.sent) == 11
    assert "h4" not in dead.deleted
    assert dead.shown == [("h4", 0)]


def test_a_large_walk_hides_for_as_long_as_it_may_take(dead_letters):
    letters, _, dead = dead_letters(*map(letter, range(10_000)))
    (group,) = letters.groups(None)
    assert (len(group.ids), dead.hidden_seconds) == (10_000, 230)


def test_a_drop_takes_what_was_counted_and_no_later_one(dead_letters):
    letters, _, _ = dead_letters(letter(1), letter(2, group="x"))
    assert letters.ids(lambda each: each.group == "x") == {"m2"}


def test_what_will_not_be_deleted_is_tried_again_then_left(dead_letters):
    letters, _, dead = dead_letters(letter(1), letter(2))
    dead.undeletable = {"h1"}
    assert letters.drop(lambda _: True, nothing) == 1
    assert dead.shown == [("h1", 0)]


def test_what_was_sent_and_stays_is_said(dead_letters):
    letters, _, dead = dead_letters(letter(1), letter(2))
    dead.undeletable = {"h1"}
    with pytest.raises(QueueError, match="2 were sent again; 1 of them could not be deleted here"):
        letters.retry(lambda _: True, nothing)


def test_what_died_on_another_queue_is_not_touched(dead_letters):
    mine, theirs = letter(1, source_arn="arn:aws:sqs:r:1:jobs"), letter(2, source_arn="arn:aws:sqs:r:1:others")
    letters, queue, dead = dead_letters(mine, theirs)
    dead.source_urls = ["jobs", "others"]
    assert letters.retry_all(nothing) == 1, "SQS's own move would take both"
    assert queue.sent == [mine]


def test_large_letters_go_in_several_requests(dead_letters):
    big = [letter(n, attributes={"x": {"DataType": "String", "StringValue": "y" * 500_000}}) for n in range(5)]
    letters, queue, _ = dead_letters(*big)
    assert letters.retry(lambda _: True, nothing) == 5
    assert len(queue.sent) == 5


def test_sqss_own_move_is_followed_to_its_end(dead_letters, monkeypatch):
    monkeypatch.setattr(room, "MOVE_LOOK_SECONDS", 0)
    letters, _, dead = dead_letters()
    dead.states = [(3, "RUNNING", ""), (7, "COMPLETED", "")]
    seen = []
    assert letters.retry_all(seen.append) == 7
    assert seen == [3, 4]


def test_a_move_that_says_it_is_complete_and_moved_nothing_is_not_believed(dead_letters):
    letters, queue, dead = dead_letters(letter(1), letter(2))
    dead.states = [(0, "COMPLETED", "")]
    assert letters.retry_all(nothing) == 2
    assert [each.message_id for each in queue.sent] == ["m1", "m2"]


def test_what_scheduler_could_not_send_is_unwrapped_before_the_move(dead_letters):
    """The move sends each as it is, which for a job with a message group is the call of SQS around it."""
    letters, queue, dead = dead_letters(letter(1, wrapped=True), letter(2))
    dead.states = [(1, "COMPLETED", "")]
    assert letters.retry_all(nothing) == 2
    assert [each.message_id for each in queue.sent] == ["m1"]


def test_what_a_move_left_behind_is_sent_one_by_one(dead_letters):
    letters, queue, dead = dead_letters(*map(letter, range(10)))
    dead.states = [(3, "COMPLETED", "")]
    del dead.letters[:3]
    counts = iter([10, 7])
    dead.length = lambda: next(counts, 7)
    assert letters.retry_all(nothing) == 10
    assert len(queue.sent) == 7


def test_a_retry_ends_although_what_it_sends_dies_again_at_once(dead_letters):
    letters, queue, dead = dead_letters(letter(1), letter(2))

    def send(sending):
        queue.sent += sending
        for each in sending:
            new = f"again-{each.message_id}"
            dead.letters.append(dataclasses.replace(each, message_id=new, receipt_handle=new, sent_at=time.time() + 2))
        return {}

    queue.send = send
    assert letters.retry(lambda _: True, nothing) == 2
    assert len(dead.letters) == 2


def test_a_tick_whose_time_scheduler_did_not_fill_in_is_sent_again_with_one(dead_letters):
    tick = dataclasses.replace(letter(1), body='{"method":"a","scheduled_at":"<aws.scheduler.scheduled-time>"}')
    letters, queue, dead = dead_letters(tick, letter(2))
    dead.states = [(1, "COMPLETED", "")]
    assert (room.method_of(tick), room.reason_of(tick, None)) == ("a", "not_delivered")
    assert letters.retry_all(nothing) == 2, "one by itself, since the move sends a body as it is"
    (sent,) = queue.sent
    assert decode(sent.body).scheduled_at == "1970-01-01T00:00:00Z"


def test_a_move_that_fails_is_said(dead_letters):
    letters, _, dead = dead_letters()
    dead.states = [(2, "FAILED", "AccessDenied")]
    with pytest.raises(QueueError, match="ended as FAILED after 2: AccessDenied. Nothing is lost: retry again"):
        letters.retry_all(nothing)


def test_a_move_that_sqs_has_forgotten_is_said():
    class Client:
        def list_message_move_tasks(self, **_):
            return {}

    with pytest.raises(QueueError, match="SQS knows of no move task of arn"):
        OperatedQueue(url="http://x/1/jobs", endpoint=None, client=Client()).move_state("arn")


def test_a_move_under_way_is_not_raced(dead_letters):
    letters, _, dead = dead_letters(letter(1))
    dead.move_error = QueueError("There is already a task running")
    with pytest.raises(QueueError, match="already a task"):
        letters.retry_all(nothing)
    assert dead.letters


def test_without_a_dead_letter_queue_the_cure_is_named(monkeypatch):
    class Bare(FakeQueue):
        def values(self):
            return {}

        def dead_letters(self, _values):
            return None

    monkeypatch.setattr(room, "operated", lambda _url: Bare())
    with pytest.raises(SettingsError, match="has no dead-letter queue: jobrunner check says how to make one"):
        room.of("http://x/1/jobs")


@pytest.mark.parametrize("body", ["[" * 5000 + "]" * 5000, '{"method": "a", "x": NaN}', "no json"])
def test_a_malformed_body_is_shown_as_it_is(body):
    shown = DeadLetter(message_id="m", receipt_handle="h", body=body, sent_at=0.0, receives=1).document()
    assert shown["body"] == body


@pytest.mark.parametrize("done", [3, 5, 7])
def test_a_bar_ends_at_the_end_also_where_sqs_counted_others(monkeypatch, done):
    bars = []
    made = click.progressbar
    monkeypatch.setattr(click, "progressbar", lambda **how: bars.append(made(**how)) or bars[0])
    with _progress("sending", 5) as progress:
        progress(done)
    assert bars[0].pct == 1.0
