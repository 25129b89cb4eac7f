"""`status --watch` without a queue: what is concluded from look to look, and how it is drawn."""

import json
import time
import types

import pytest
from botocore.exceptions import EndpointConnectionError

from jobrunner.cli import watching
from jobrunner.errors import AccessDenied, QueueError, SettingsError
from jobrunner.message import Call, Delivery, encode
from jobrunner.operate import screen
from jobrunner.operate.queues import DeadLetter, Figures
from jobrunner.operate.watch import QueueWatch, View
from jobrunner.operate.workers import Deletes, Running, Worker, workers_in
from jobrunner.worker.hand import Hand
from jobrunner.worker.health import StatusFile
from jobrunner.worker.lease import State

#: None of them is old, however long the tests before took.
NOW = time.time() + 3600
URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/shop-jobs"


class Queue:
    """Stands in for an operated queue; its numbers are set by the test."""

    clock_skew_seconds = 0.0

    def __init__(self, url=URL):
        self.url = url
        self.numbers = {"": 0, "NotVisible": 0, "Delayed": 0}
        self.cloudwatch = Figures()
        self.asked = 0
        self.dead = None
        self.letters = []

    def set(self, visible, in_flight=0):
        self.numbers |= {"": visible, "NotVisible": in_flight}

    def values(self):
        return {f"ApproximateNumberOfMessages{kind}": str(count) for kind, count in self.numbers.items()}

    def figures(self):
        self.asked += 1
        return self.cloudwatch

    def dead_letters(self, _values):
        return self.dead

    # What the walk over dead letters wants.

    def length(self):
        return len(self.letters)

    def receive(self, *, hidden_seconds, wait_seconds):
        assert hidden_seconds
        assert wait_seconds
        taken, self.letters = self.letters[:10], self.letters[10:]
        return taken

    def change_visibility(self, _changes):
        return {}


@pytest.fixture
def queue():
    found = Queue()
    found.dead = Queue(f"{URL}-dead")
    return found


@pytest.fixture
def clock():
    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def watch(queue, clock):
    return QueueWatch(queue, clock=clock)


def looks(watch, queue, clock, *totals, every=5.0, **words):
    for total in totals:
        queue.set(total)
        view = watch.look(**words)
        clock.now += every
    return view


def worker(deleted, at, pid=7, queue_url=URL, **more):
    return Worker(pid=pid, at=NOW + at, state="busy", in_hand=8, queue_url=queue_url, deleted=deleted, **more)


def test_the_rate_is_of_the_last_minute_and_says_when_it_is_empty(watch, queue, clock):
    view = looks(watch, queue, clock, 9_000, *range(1_200, 0, -60))  # 60 fewer every 5 s, once it has begun
    assert view.net == pytest.approx(-12)
    assert view.drained_seconds() == pytest.approx(60 / 12)
    assert view.visible[-3:] == [180, 120, 60]


def test_a_queue_that_grows_is_never_drained(watch, queue, clock):
    view = looks(watch, queue, clock, 0, 10, 20)
    assert (view.net, view.drained_seconds()) == (2.0, None)


def test_cloudwatch_is_asked_once_a_minute_and_known_at_the_first_look(watch, queue, clock):
    queue.cloudwatch = Figures(oldest_seconds=300, sent_per_second=5, deleted_per_second=9)
    first = looks(watch, queue, clock, 400)
    assert (first.sent, first.deleted, first.net, first.source) == (5, 9, -4, "CloudWatch")
    assert first.drained_seconds() == 100
    looks(watch, queue, clock, *[300] * 11)
    assert queue.asked == 1
    looks(watch, queue, clock, 300)
    assert queue.asked == 2


def test_without_cloudwatch_the_workers_here_say_what_is_done_and_the_rest_came_in(watch, queue, clock):
    said = [worker(0, 100), worker(3, 100, pid=8), worker(99, 100, pid=9, queue_url=f"{URL}-other")]
    assert looks(watch, queue, clock, 100, workers=said).sent is None
    said = [worker(50, 105), worker(13, 105, pid=8), worker(999, 105, pid=9, queue_url=f"{URL}-other")]
    view = looks(watch, queue, clock, 90, workers=said)
    assert (view.deleted, view.net, view.sent) == (12, -2, 10)
    assert view.source == "the workers here"


def test_a_worker_that_has_started_again_is_counted_anew():
    deletes = Deletes(within_seconds=60)
    assert deletes.per_second([worker(100, 10)]) is None
    assert deletes.per_second([worker(150, 20)]) == 5
    assert deletes.per_second([worker(0, 30, pid=8)]) is None
    assert deletes.per_second([worker(10, 40, pid=8)]) == 1
    assert deletes.per_second([worker(70, 100, pid=8)]) == 1, "of the last minute only"
    assert deletes.per_second([worker(5, 110, pid=8)]) is None, "another one of the same number"
    assert deletes.per_second([worker(15, 120, pid=8)]) == 1
    assert deletes.per_second([worker(0, -7200), worker(900, -7190)]) is None, "they are dead"


def test_dead_letters_are_sorted_by_method_when_they_grow(watch, queue, clock):
    def die(*methods):
        clock.now += 60
        queue.dead.letters = [
            DeadLetter(message_id=f"m{n}", receipt_handle="h", body=encode(Call(method=name)), sent_at=0, receives=1)
            for n, name in enumerate(methods)
        ]
        queue.dead.set(len(methods))

    die("a", "b")
    assert looks(watch, queue, clock, 1).dead_by_method == {}, "there before: `dead list` tells of them"
    die("a", "b", *["thumbnails.make"] * 12)
    view = looks(watch, queue, clock, 1)
    assert (view.dead_growth, view.dead_by_method) == (12, {"thumbnails.make": 12, "a": 1, "b": 1})
    (line,) = [line for line in screen.frame([view], [], width=100) if " dead " in line]
    assert line == "         14 dead       +12: 12 thumbnails.make, 1 a, 1 b"
    die("a")
    view = looks(watch, queue, clock, 1)
    assert (view.dead_growth, view.dead_by_method) == (0, {}), "some were sent again"
    die("a", "b")
    assert looks(watch, queue, clock, 1).dead_by_method == {"a": 1, "b": 1}
    queue.dead.letters = []
    queue.dead.set(3)
    view = looks(watch, queue, clock, 1)
    assert (view.dead_growth, view.dead_by_method) == (2, {"a": 1, "b": 1}), "they are not looked at at each look"


def test_who_may_not_look_at_dead_letters_is_shown_their_number(watch, queue, clock, monkeypatch):
    def refuse(**_):
        raise AccessDenied("no")

    looks(watch, queue, clock, 1)
    queue.dead.set(3)
    monkeypatch.setattr(queue.dead, "receive", refuse)
    view = looks(watch, queue, clock, 1)
    assert "          3 dead       +3: 3 others" in screen.frame([view], [], width=80)


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("blocks", [screen.BLOCKS, screen.ASCII])
def test_no_line_is_longer_than_the_screen(watch, queue, clock, width, blocks):
    queue.cloudwatch = Figures(oldest_seconds=300_000, sent_per_second=12_345.6, deleted_per_second=9.9)
    view = looks(watch, queue, clock, *range(100_000, 200_000, 1_000))
    running = Running(method="reports.quarterly." + "long_" * 20, count=1_000, oldest_seconds=4_000)
    lines = screen.frame([view] * 2, [worker(10**9, 0, running=(running,))], width=width, blocks=blocks)
    assert max(map(len, lines)) <= width
    assert sum(line.endswith(URL[3 - width :][-width:]) for line in lines) == 2, "its name is seen in any case"


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([0, 0], "▁▁"), ([0, 1, 2, 4, 8], "▁▂▃▅█"), ([5], "█"), ([1_000_000, 1], "█▂")],
)
def test_a_picture_is_as_high_as_its_largest_value_and_shows_one_that_is_not_none(values, drawn):
    assert screen.picture(values, 60) == drawn


def test_the_newest_values_are_drawn():
    assert screen.picture([*range(100)], 3) == "███"
    assert screen.picture([9, 0], 1) == "▁"
    assert screen.picture([9, 0], 0) == ""


@pytest.mark.parametrize(
    ("net", "total", "says"),
    [
        (None, 5, "? to go      the next look will say"),
        (0.0, 5, "- to go      it gets neither shorter nor longer"),
        (2.5, 5, "- to go      it gets 2.5/s longer"),
        (-2.0, 600, "5 min to go      it gets 2.0/s shorter"),
        (0.0, 0, "- to go      it is empty"),
        (-1.0, 0, "- to go      it is empty"),
    ],
)
def test_the_outlook_is_said_in_words(watch, queue, clock, net, total, says):
    view = looks(watch, queue, clock, total)
    lines = screen.frame([View(status=view.status, net=net)], [], width=80)
    assert [line.strip() for line in lines if "to go" in line] == [says]


def test_a_worker_writes_what_it_runs_by_method_and_a_folder_of_them_is_read(tmp_path, clock):
    hand = Hand(threads=4, visibility_seconds=60, attempts_max=10, clock=clock)
    bodies = [encode(Call(method=name)) for name in ("a", "b", "b", "c")]
    deliveries = [
        Delivery(message_id=f"m{n}", receipt_handle="h", body=body, attempt=1, sent_at=0)
        for n, body in enumerate(bodies)
    ]
    first, second, third, _waits = hand.received(deliveries, asked=4, held_since=0, receive_seconds=0)
    hand.start(second)
    clock.now += 5
    hand.start(third, State.ALONE)
    hand.start(first)
    clock.now += 1
    hand.finish(first)
    hand.confirm([first])
    StatusFile(path=tmp_path / "worker-0.json", queue_url=URL, state=lambda: "busy", hand=hand).write()
    (tmp_path / "worker-1.json").write_text("half of")
    old = {"pid": 1, "at": 0, "state": "busy", "in_hand": 3, "newer": 1}
    (tmp_path / "worker-2.json").write_text(json.dumps(old))
    for number, odd in enumerate(
        ({"at": "2026-01-01"}, {"deleted": "x"}, {"running": [{"method": "a"}]}, {"pid": None})
    ):
        (tmp_path / f"worker-odd-{number}.json").write_text(json.dumps(old | odd))
    (tmp_path / "worker-list.json").write_text("[1]")
    (told, old) = workers_in([tmp_path])
    assert (told.queue_url, told.deleted, told.in_hand, told.is_stale()) == (URL, 1, 3, False)
    assert told.running == (Running(method="b", count=2, oldest_seconds=6.0),)
    lines = screen.frame([], [told, old], width=80)
    assert lines[1:] == ["          2 x b, the oldest for 6 s", "worker 1: stuck or dead, 3 in hand, 0 deleted"]


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(SettingsError, match="its folder does not exist"):
        workers_in([tmp_path / "nowhere" / "worker.json"])


def test_a_status_file_that_nobody_writes_is_said(queue, tmp_path):
    lines = watching._look([QueueWatch(queue)], [tmp_path / "worker.json"], 10_000, screen.BLOCKS)
    assert lines[-1] == f"no worker has written {tmp_path / 'worker.json'}"


def test_a_queue_that_cannot_be_asked_is_said_and_asked_again(monkeypatch, capsys):
    class Down(Queue):
        error = QueueError("SQS did not answer")

        def values(self):
            raise self.error

    queue, slept = Down(), []

    def sleep(seconds):
        slept.append(seconds)
        queue.error = AccessDenied("no") if len(slept) == 2 else queue.error

    monkeypatch.setattr(watching, "time", types.SimpleNamespace(sleep=sleep))
    with pytest.raises(AccessDenied):
        watching.watch([QueueWatch(queue)], [], every_seconds=5)
    assert capsys.readouterr().out.count("SQS did not answer") == 2


def test_one_queue_that_cannot_be_asked_does_not_hide_the_others(queue, tmp_path):
    class Gone(Queue):
        def values(self):
            raise AccessDenied("may not be seen")

    watches = [QueueWatch(Gone("https://sqs.test/1/gone")), QueueWatch(queue)]
    lines = watching._look(watches, [], 80, screen.BLOCKS)
    assert lines[1:4] == ["https://sqs.test/1/gone", "  may not be seen", ""]
    assert URL in lines


@pytest.mark.parametrize(("given", "taken"), [((0, 0), (80, 24)), ((40, 1), (40, 3)), ((120, 50), (120, 50))])
def test_a_terminal_that_does_not_know_its_size_has_the_usual_one(monkeypatch, given, taken):
    monkeypatch.setattr(watching.sys, "stdout", types.SimpleNamespace(fileno=lambda: 1))
    monkeypatch.setattr(watching.os, "get_terminal_size", lambda _: given)
    assert watching._size() == taken


def test_what_does_not_fit_is_counted(capsys):
    watching._draw(["a", "b", "c", "d", "e"], 30, 4)
    assert capsys.readouterr().out == "a\nb\n... 3 more lines: make the ...\n"  # what moves the cursor is for terminals


def test_cloudwatch_that_does_not_answer_is_asked_once():
    from jobrunner.operate.queues import OperatedQueue

    asked = []

    def refuse(**named):
        asked.append(named["MetricName"])
        raise EndpointConnectionError(endpoint_url="x")

    cloudwatch = types.SimpleNamespace(get_metric_statistics=refuse)
    endpoint = types.SimpleNamespace(other_client=lambda *_, **__: cloudwatch)
    assert OperatedQueue(url=URL, endpoint=endpoint, client=None).figures() == Figures()
    assert asked == ["ApproximateAgeOfOldestMessage"]
