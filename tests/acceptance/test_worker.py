"""The real `jobrunner consume`: the main job, signals, and what happens when it cannot start."""

import json
import signal
import subprocess
from collections import Counter

import pytest
from servers import wait_for
from workers import PROGRAM

from jobrunner import enqueue

#: What does not depend on the server, and what moto cannot do.
on_one_server = pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
STEERED = """
class Busy(Exception): retry_seconds = 1
class Never(Exception): retry_seconds = None
def busy(name):
    note(name)
    if HERE.joinpath("notes.txt").read_text().count(name) < 3: raise Busy
def never(): raise Never
"""


def test_a_job_may_steer_its_retries(app):
    """On a queue with ten attempts: plain backoffs would be 5 s and 10 s."""
    app.write_jobs(STEERED)
    worker = app.consume()
    app.enqueue(("busy", {"name": "busy"}), ("never", {}))
    worker.wait("job.done", method="busy", seconds=30)
    assert {line["retry_seconds"] for line in worker.named("job.failed", method="busy")} == {1}
    (given_up,) = worker.wait("job.given_up", method="never")
    assert "retry_seconds is None" in given_up["reason"]
    app.wait_until_empty()
    assert app.counts(dead=True) == (1, 0, 0)
    found = subprocess.run(
        [*PROGRAM, "dead", "list", "--queue-url", app.queue_url, "--app-dir", app.folder],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "never  given up: retry_seconds is None" in found.stdout


@on_one_server
def test_what_it_is_told_by_flags_holds_for_enqueue_in_its_jobs(app):
    """The queue and the module: nothing is in the environment."""
    (app.folder / "jobs.py").unlink()
    app.write("app/tasks.py", "from jobrunner import enqueue\ndef first(): enqueue(second)\ndef second(): pass\n")
    worker = app.consume("--module", "app.tasks")
    app.enqueue(("first", {}))
    worker.wait("job.done", method="second")


# moto looks at every message for each receive: a thousand take it a minute.
@on_one_server
def test_a_thousand_mixed_jobs_are_all_accounted_for(app, client):
    calls = []
    for n in range(160):
        calls += [
            ("noop", {}),
            ("note", {"name": f"n{n}"}),
            ("note", [f"p{n}"]),
            ("anap", {"seconds": 0.01}),
            ("noop", []),
        ]
    calls += [("fail_once", {"name": str(n)}) for n in range(50)]
    calls += [("fail", {}), ("no.such.job", {}), ("note", {"wrong": 1})] * 20
    calls += [("nap", {"seconds": 0.2, "name": str(n)}) for n in range(88)]
    app.enqueue(*calls)
    bodies = ["not json", '{"method": 1}']
    for body in bodies:
        client(app.queue_url.rsplit("/", 2)[0]).send_message(QueueUrl=app.queue_url, MessageBody=body)
    assert len(calls) + len(bodies) == 1000
    worker = app.consume()
    worker.wait("job.done", 160 * 5 + 50 + 88, seconds=90)
    wait_for(lambda: sum(app.counts()) == 62, 60, "only what never can be done is left")
    code, seconds = worker.stop()
    assert (code, seconds < 3) == (0, True), str(worker)
    notes = {*(f"{kind}{n}" for n in range(160) for kind in "np")}
    notes |= {f"{kind} {n}" for n in range(88) for kind in ("start", "end")}
    assert set(app.notes()) == notes
    # Once each, but for what the server itself delivered again: a starved moto may answer too late.
    done = Counter(line["message_id"] for line in worker.named("job.done"))
    again = {line["message_id"] for line in worker.named("job.done") if line["attempt"] > 1}
    assert {message_id for message_id, count in done.items() if count > 1} <= again
    assert len({line["message_id"] for line in worker.named("job.failed", method="fail")}) == 20
    assert len({line["message_id"] for line in worker.named("job.bad_params")}) == 20
    assert len({line["message_id"] for line in worker.named("job.malformed")}) == 2
    assert worker.named("job.unknown_method")
    assert sum(app.counts()) == 62, "nothing was deleted that had not run to its end"


def test_sigterm_in_a_long_poll_on_an_empty_queue_is_quick(app):
    worker = app.consume("--wait-seconds", 20)
    worker.wait("worker.ready")
    code, seconds = worker.stop()
    assert (code, seconds < 3) == (0, True), f"{seconds} {worker}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_comes_just_after_the_end_of_a_worker_is_not_lost_to_its_long_poll(app, make_queue, server_url, number):
    app.queue_url = make_queue(server_url, visibility_seconds=10)
    worker = app.consume("--wait-seconds", 20)
    worker.wait("worker.ready")
    worker.signal(number)
    worker.end()
    app.enqueue(("note", ["late"]))
    app.consume().wait("job.done", seconds=30)
    assert app.notes() == ["late"]


# Not on moto: its long poll does not notice what becomes visible, and then gives it to a poll whose client is gone.
@on_one_server
def test_sigterm_hands_running_jobs_back_and_they_start_elsewhere_at_once(app):
    worker = app.consume("--wait-seconds", 20)
    app.enqueue(
        *[("nap", {"seconds": 30, "name": f"long{n}"}) for n in range(4)], ("nap", {"seconds": 1, "name": "short"})
    )
    wait_for(lambda: len(app.notes()) == 5)
    code, seconds = worker.stop()
    assert (code, seconds < 3) == (0, True), f"{seconds} {worker}"
    assert worker.named("worker.stopped")[0]["handed_back_count"] == 4
    assert "end short" in app.notes()
    # Its own last poll may be given one, which it releases again, unless the machine is too busy for the stop's second.
    assert app.counts() in ((4, 0, 0), (3, 1, 0))
    other = app.consume()
    wait_for(
        lambda: len([note for note in app.notes() if note.startswith("start long")]) == 8,
        what=lambda: f"{app.notes()} {worker}\n{other}",
    )
    other.kill()


@on_one_server
def test_a_second_signal_ends_it_at_once(app):
    worker = app.consume()
    app.enqueue(("nap", {"seconds": 30}))
    wait_for(app.notes)
    worker.signal(signal.SIGINT)
    worker.wait("worker.stopping")
    worker.signal(signal.SIGINT)
    assert worker.end() == 10
    assert sum(app.counts()) == 1


def test_kill_9_loses_nothing(app):
    worker = app.consume("--visibility-timeout", 10)
    app.enqueue(*[("nap", {"seconds": 3, "name": str(n)}) for n in range(12)])
    wait_for(lambda: len(app.notes()) >= 8)
    worker.kill()
    assert sum(app.counts()) == 12
    other = app.consume("--visibility-timeout", 10)
    other.wait("job.done", 12, seconds=40)
    app.wait_until_empty()


def test_stop_when_empty_runs_what_is_there_and_ends(app):
    app.enqueue(*[("note", [str(n)]) for n in range(30)])
    worker = app.consume("--stop-when-empty", "--wait-seconds", 1)
    assert worker.end() == 0, str(worker)
    assert sorted(app.notes(), key=int) == [str(n) for n in range(30)]
    assert app.counts() == (0, 0, 0)


@on_one_server
def test_a_hostile_app_directory_changes_nothing(app):
    for name in (
        "queue",
        "message",
        "logging_",
        "errors",
        "lease",
        "select",
        "xml",
        "sqs",
        "settings",
        "email",
        "runner",
    ):
        app.write(f"{name}.py", "raise SystemExit('the wrong file was imported')")
    app.write("json_/__init__.py", "")
    app.enqueue(("note", ["fine"]))
    worker = app.consume("--stop-when-empty", "--wait-seconds", 1, cwd=app.folder)
    assert worker.end() == 0, str(worker)
    assert app.notes() == ["fine"]


@on_one_server
def test_an_app_with_packages_of_our_folders_names_works(app):
    """An app may have its own `consumer`, `queue`, `worker`: the one name that is ours is `jobrunner`."""
    app.write("consumer/__init__.py", "def taste(): return 'theirs'\n")
    app.write("worker/__init__.py", "import consumer\nTASTE = consumer.taste()\n")
    app.write("message.py", "WORD = 'theirs'\n")
    app.write_jobs("import consumer, message, worker\ndef whose(): note(worker.TASTE + ' ' + message.WORD)\n")
    app.enqueue(("whose", {}))
    worker = app.consume("--stop-when-empty", "--wait-seconds", 1, cwd=app.folder)
    assert worker.end() == 0, str(worker)
    assert app.notes() == ["theirs theirs"]


@on_one_server
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--module", "nothing"], 3, "no module 'nothing'"),
        (["--module", "broken"], 3, "not_installed"),
        (["--around", "jobs:nope"], 3, "has no attribute 'nope'"),
        (["--visibility-timeout", "5"], 2, "outside 10 to 43200"),
    ],
)
def test_what_cannot_start_says_the_cure_and_ends_with_its_code(app, words, code, says):
    app.write("broken.py", "import not_installed")
    worker = app.consume(*words)
    assert worker.end() == code
    assert says in str(worker)


def test_a_missing_queue_is_an_error_at_once(app):
    worker = app.consume("--queue-url", app.queue_url + "-missing")
    assert worker.end() == 4
    assert "sqs get-queue-url" in worker.named("worker.refused")[0]["error"]


@on_one_server
def test_missing_credentials_are_an_error_at_once(app):
    env = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(app.folder)}
    worker = app.consume(env=env)
    assert worker.end() == 5
    assert "AWS_ACCESS_KEY_ID" in worker.named("worker.refused")[0]["error"]


@on_one_server
def test_the_endpoint_may_come_from_the_environment(app):
    server, _, path = app.queue_url.partition("/0000") if "/0000" in app.queue_url else app.queue_url.partition("/1234")
    account = app.queue_url.split("/")[3]
    elsewhere = f"http://sqs.example:1/{account}/{app.queue_url.rsplit('/', 1)[1]}"
    app.enqueue(("note", ["here"]))
    worker = app.consume(
        "--queue-url", elsewhere, "--stop-when-empty", "--wait-seconds", 1, env={"AWS_ENDPOINT_URL_SQS": server}
    )
    assert worker.end() == 0, f"{path} {worker}"
    assert app.notes() == ["here"]


@on_one_server
def test_around_and_context_reach_every_line(app):
    app.write("jobs.py", "import logging\nlog = logging.getLogger('app')\ndef say(): log.warning('inside')\n")
    app.write(
        "web.py",
        """
        import logging
        from contextlib import contextmanager
        @contextmanager
        def scope():
            logging.getLogger("web").warning("in")
            yield
            logging.getLogger("web").warning("out")
        """,
    )
    job_id = enqueue("say", context={"request_id": "7f3a"}, queue_url=app.queue_url)
    worker = app.consume("--around", "web:scope", "--stop-when-empty", "--wait-seconds", 1)
    assert worker.end() == 0, str(worker)
    mine = [line for line in worker.lines if line.get("request_id") == "7f3a"]
    assert [line["event"] for line in mine] == ["in", "inside", "out", "job.done"]
    assert {(line["job_id"], line["method"], line["attempt"]) for line in mine} == {(job_id, "say", 1)}


@on_one_server
def test_params_are_never_logged(app):
    app.enqueue(("note", {"name": "s3cret"}), ("fail", {"x": "s3cret"}), ("nope", {"x": "s3cret"}))
    worker = app.consume()
    worker.wait("job.done")
    worker.wait("job.bad_params")
    worker.wait("job.unknown_method")
    worker.stop()
    assert "s3cret" not in json.dumps(worker.lines) + str(worker)


@on_one_server
def test_lines_are_whole_and_short_even_with_endless_tracebacks(app):
    app.write("jobs.py", "def deep(n=0):\n    deep(n + 1) if n else other(1)\ndef other(n): deep(n)\n")
    app.enqueue(*[("deep", {}) for _ in range(20)])
    worker = app.consume()
    worker.wait("job.failed", 20)
    worker.stop()
    assert worker.other == []
    assert max(len(json.dumps(line, separators=(",", ":"))) for line in worker.lines) < 4096


@on_one_server
@pytest.mark.parametrize(
    ("call", "event"), [(("note", {"wrong": 1}), "job.bad_params"), (("no.such.job", {}), "job.unknown_method")]
)
def test_a_call_that_reaches_no_function_is_found_by_its_id_and_its_context(app, call, event):
    worker = app.consume()
    job_id = enqueue(*call, context={"request_id": "q2"}, queue_url=app.queue_url)
    (line,) = worker.wait(event)
    assert (line["job_id"], line["request_id"], line["method"]) == (job_id, "q2", call[0])
