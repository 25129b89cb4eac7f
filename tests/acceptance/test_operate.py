"""The commands for whoever is on call, on real queues: check, status, dead letters."""

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest
from proxy import Proxy
from servers import counts, wait_for
from workers import PROGRAM

from jobrunner import enqueue_many

RETRY_KILLS = int(os.environ.get("RETRY_KILLS", "20"))  # full size: 50
JOBS = "def noop(): pass\ndef note(name): pass\n"


@pytest.fixture
def jobrunner(tmp_path):
    """Run a command to its end on an app with two jobs."""
    (tmp_path / "jobs.py").write_text(JOBS)

    def run(*words, code=0, cwd=tmp_path, **options):
        command = [*PROGRAM, *map(str, words)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, timeout=60, **options)
        assert done.returncode == code, done
        return done.stdout

    return run


@pytest.fixture
def url(server_url, make_queue):
    return make_queue(server_url)


@pytest.fixture
def sqs(server_url, client):
    return client(server_url)


def put(sqs, url, *bodies):
    """Put dead letters where SQS would have moved them."""
    texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
    for start in range(0, len(texts), 10):
        entries = [{"Id": str(n), "MessageBody": text} for n, text in enumerate(texts[start : start + 10])]
        sqs.send_message_batch(QueueUrl=f"{url}-dead", Entries=entries)


def drain(sqs, url, wanted, seconds):
    """Take what a queue holds, until all that is wanted was seen; waits for what is hidden."""
    bodies = set()
    deadline = time.monotonic() + seconds
    while not wanted <= bodies and time.monotonic() < deadline:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=120)
        bodies |= {message["Body"] for message in answer.get("Messages", ())}
    return bodies


def test_check_finds_nothing_wrong_with_a_good_queue(jobrunner, url, sqs):
    sqs.set_queue_attributes(QueueUrl=f"{url}-dead", Attributes={"MessageRetentionPeriod": "1209600"})
    found = json.loads(jobrunner("check", "--queue-url", url, "--json"))
    assert {finding["level"] for finding in found} == {"ok"}
    assert {"settings", "queue", "clock", "permissions", "module", "crons", "dead letters"} <= {
        finding["subject"] for finding in found
    }
    assert counts(url) == counts(url, dead=True) == (0, 0, 0), "it changes nothing"


@pytest.mark.parametrize("server_url", ["moto"], indirect=True)  # ElasticMQ has no policies and no encryption
def test_check_names_everything_that_is_wrong_with_its_cure(jobrunner, url, sqs, tmp_path):
    values = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    statement = {"Sid": "Open", "Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    redrive = {**json.loads(values["RedrivePolicy"]), "maxReceiveCount": 2}
    wrong = {
        "VisibilityTimeout": "5",
        "DelaySeconds": "30",
        "MessageRetentionPeriod": "3600",
        "MaximumMessageSize": "1024",
        "SqsManagedSseEnabled": "false",
        "RedrivePolicy": json.dumps(redrive),
        "Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes=wrong)
    sqs.set_queue_attributes(QueueUrl=f"{url}-dead", Attributes={"MessageRetentionPeriod": "600"})
    put(sqs, url, {"method": "noop"})
    (tmp_path / "jobs.py").write_text("import no_such_library\n")
    (tmp_path / "supervisord.conf").write_text("[program:jobrunner]\ncommand=jobrunner consume\nstopwaitsecs=1\n")
    words = ("check", "--queue-url", url, "--job-timeout", 0)
    found = json.loads(jobrunner(*words, "--json", code=1))
    bad = {finding["subject"]: finding for finding in found if finding["level"] != "ok"}
    assert {subject.replace(str(tmp_path), "") for subject in bad} == {
        "visibility timeout",
        "job timeout",
        "attempts",
        "delay",
        "message size",
        "retention",
        "encryption",
        "who may send",
        "dead-letter retention",
        "dead letters",
        "module",
        "/supervisord.conf [program:jobrunner]",
    }
    assert all(finding["value"] and finding["why"] and finding["cure"] for finding in bad.values())
    text = jobrunner(*words, code=1)
    assert all(finding["cure"] in text for finding in bad.values())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--queue-url", "ftp://x"], "is not a queue URL"),
        (["--queue-url", "http://127.0.0.1:1/0/jobs"], "SQS did not answer"),
        (["--queue-url", "{url}-no"], "does not exist"),
        (["--queue-url", "{url}", "--module", "nowhere"], "no module 'nowhere'"),
        (["--queue-url", "{url}", "--around", "jobs:missing"], "has no attribute 'missing'"),
        (["--queue-url", "{url}", "--crons", "no.toml"], "no.toml"),
        (["--queue-url", "{url}", "--threads", "0"], "--threads is 0"),
    ],
)
@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_check_says_what_it_cannot_reach_or_load(jobrunner, url, words, says):
    found = json.loads(jobrunner("check", *[word.format(url=url) for word in words], "--json", code=1))
    errors = [finding for finding in found if finding["level"] == "error"]
    assert any(says in finding["value"] for finding in errors), errors
    assert all(finding["why"] for finding in errors)


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_check_proves_what_it_can_and_spends_no_attempt(jobrunner, url, sqs):
    """Not one: with maxReceiveCount 1 a receive would make a dead letter of a healthy job."""
    sqs.send_message(QueueUrl=url, MessageBody='{"method": "x"}')
    found = json.loads(jobrunner("check", "--queue-url", url, "--json"))
    (said,) = [finding["value"] for finding in found if finding["subject"] == "permissions"]
    assert "sqs:DeleteMessage proven, sqs:ChangeMessageVisibility proven, sqs:SendMessage not refused" in said
    assert counts(url) == (1, 0, 0)
    (message,) = sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"])["Messages"]
    assert (message["Body"], message["Attributes"]["ApproximateReceiveCount"]) == ('{"method": "x"}', "1")


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_check_names_the_permission_that_is_missing(jobrunner, url, server_url, monkeypatch):
    proxy = Proxy(server_url)
    proxy.fault("denied", actions=["DeleteMessageBatch", "SendMessageBatch"])
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", proxy.url)
    found = json.loads(jobrunner("check", "--queue-url", url, "--json", code=1))
    missing = {
        finding["cure"].split('"Action": "')[1].split('"')[0]: finding
        for finding in found
        if finding["subject"] == "permission"
    }
    assert {action: finding["level"] for action, finding in missing.items()} == {
        "sqs:DeleteMessage": "error",
        "sqs:SendMessage": "warn",
    }
    proxy.fault("denied", actions=["GetQueueAttributes"])
    (queue,) = [
        finding
        for finding in json.loads(jobrunner("check", "--queue-url", url, "--json", code=1))
        if finding["subject"] == "queue"
    ]
    assert "sqs:GetQueueAttributes was refused" in queue["cure"]
    proxy.refuse()


def test_status_counts_and_watches(jobrunner, url, sqs, tmp_path):
    enqueue_many([("noop", {})] * 3, queue_url=url)
    sqs.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=60)
    put(sqs, url, "x")
    sqs.receive_message(QueueUrl=url)
    found = json.loads(jobrunner("status", "--queue-url", url, "--json"))
    assert (found["queue"]["visible"], found["queue"]["in_flight"], found["queue"]["delayed"]) == (2, 1, 1)
    assert found["dead"]["visible"] == 1
    text = jobrunner("status", "--queue-url", url)
    assert re.search(r" 2 visible .* 1 in flight .* 1 delayed .* 1 dead .*jobrunner dead list", text, re.DOTALL)
    watch = subprocess.Popen(
        [*PROGRAM, "status", "--watch", "--json", "--queue-url", url], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert json.loads(watch.stdout.readline()) == found
    assert json.loads(watch.stdout.readline())
    watch.send_signal(signal.SIGINT)
    assert watch.wait(10) == 0
    watch.stdout.close()


def test_dead_letters_are_grouped_shown_and_hidden_from_nobody(jobrunner, url, sqs):
    job = {"method": "note", "params": {"name": "n"}, "id": "job-7"}
    put(
        sqs,
        url,
        *[{"method": "noop"}] * 11,
        job,
        {"method": "note", "params": [1, 2]},
        {"method": "gone.job"},
        "no json",
    )
    groups = json.loads(jobrunner("dead", "list", "--queue-url", url, "--json"))
    assert {(group["method"], group["reason"]): group["count"] for group in groups} == {
        ("noop", "failed"): 11,
        ("note", "failed"): 1,
        ("note", "bad_params"): 1,
        ("gone.job", "unknown_method"): 1,
        ("?", "malformed"): 1,
    }
    assert counts(url, dead=True) == (15, 0, 0), "none is hidden any more"
    text = jobrunner("dead", "list", "--queue-url", url)
    assert re.match(r" +11  noop  failed  sent \d+ s to \d+ s ago\n.*and 8 more\n", text)
    for wanted in ("job-7", groups[-1]["ids"][0]):
        assert json.loads(jobrunner("dead", "show", wanted, "--queue-url", url))["message_id"]
    shown = json.loads(jobrunner("dead", "show", "job-7", "--queue-url", url))
    assert (shown["body"], shown["reason"]) == (job, "failed")
    assert counts(url, dead=True) == (15, 0, 0)
    jobrunner("dead", "show", "nobody", "--queue-url", url, code=2)


def test_an_app_that_does_not_load_leaves_only_the_reasons_open(jobrunner, url, sqs, tmp_path):
    (tmp_path / "jobs.py").write_text("import no_such_library\n")
    put(sqs, url, {"method": "noop"}, "no json")
    groups = json.loads(jobrunner("dead", "list", "--queue-url", url, "--json"))
    assert {group["method"]: group["reason"] for group in groups} == {
        "noop": "not known: the app does not load here",
        "?": "malformed",
    }


def test_retry_by_method_and_by_id_leaves_the_others(jobrunner, url, sqs):
    put(sqs, url, *[{"method": "noop"}] * 12, {"method": "note", "params": ["x"], "id": "job-7"}, "no json")
    sqs.send_message(
        QueueUrl=f"{url}-dead",
        MessageBody='{"method": "tenant.job"}',
        MessageAttributes={"origin": {"DataType": "String", "StringValue": "abroad"}},
    )
    assert jobrunner("dead", "retry", "--method", "noop", "--queue-url", url) == "12 sent again\n"
    assert json.loads(jobrunner("dead", "retry", "job-7", "--queue-url", url, "--json")) == {"count": 1}
    assert (counts(url), counts(url, dead=True)) == ((13, 0, 0), (2, 0, 0))
    jobrunner("dead", "retry", "no-such-id", "--queue-url", url, code=2)
    jobrunner("dead", "retry", "--method", "tenant.job", "--queue-url", url)
    found = wait_for(
        lambda: [
            message["MessageAttributes"]
            for message in sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=1
            ).get("Messages", ())
            if "MessageAttributes" in message
        ],
        20,
    )
    assert found[0]["origin"]["StringValue"] == "abroad"


def test_retry_of_all_uses_the_servers_own_move_where_there_is_one(jobrunner, url, sqs, server_url, moto_url):
    put(sqs, url, *[{"method": "noop"}] * 25, "no json")
    assert jobrunner("dead", "retry", "--all", "--queue-url", url) == "26 sent again\n"
    assert wait_for(lambda: (counts(url), counts(url, dead=True)) == ((26, 0, 0), (0, 0, 0)))
    if server_url != moto_url:
        arn = sqs.get_queue_attributes(QueueUrl=f"{url}-dead", AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        (task,) = sqs.list_message_move_tasks(SourceArn=arn)["Results"]
        assert task["ApproximateNumberOfMessagesMoved"] == 26


def test_drop_asks_first_and_drops_what_was_meant(jobrunner, url, sqs):
    put(sqs, url, *[{"method": "old"}] * 11, {"method": "noop"})
    jobrunner("dead", "drop", "--all", "--queue-url", url, code=2, stdin=subprocess.DEVNULL)
    assert counts(url, dead=True) == (12, 0, 0)
    assert jobrunner("dead", "drop", "--method", "old", "--yes", "--queue-url", url) == "11 dropped\n"
    assert (counts(url), counts(url, dead=True)) == ((0, 0, 0), (1, 0, 0))
    for words in ([], ["--all", "--method", "x"], ["--all", "an-id"]):
        jobrunner("dead", "drop", *words, "--yes", "--queue-url", url, code=2)


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_retry_killed_at_random_loses_nothing(server_url, make_queue, sqs, tmp_path):
    """Five queues at once share the kills; a delay of 20 ms a request, so that they fall into the middle."""
    (tmp_path / "jobs.py").write_text(JOBS)
    proxy = Proxy(server_url, delay_seconds=0.02)
    interrupted = []

    def torture(url):
        wanted = {json.dumps({"method": "noop", "id": str(n)}) for n in range(300)}
        put(sqs, url, *wanted)
        for _ in range(RETRY_KILLS // 5):
            command = [*PROGRAM, "dead", "retry", "--method", "noop", "--queue-url", url]
            process = subprocess.Popen(
                command, cwd=tmp_path, env={**os.environ, "AWS_ENDPOINT_URL_SQS": proxy.url}, stderr=subprocess.DEVNULL
            )
            time.sleep(random.uniform(0.6, 1.2))
            process.kill()
            interrupted.append(process.wait() == -signal.SIGKILL)
        again = drain(sqs, url, wanted, seconds=5)
        left = drain(sqs, f"{url}-dead", wanted - again, seconds=60)
        assert again | left == wanted
        moved.append((len(again), len(left)))

    moved = []
    threads = [threading.Thread(target=torture, args=(make_queue(server_url),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proxy.refuse()
    assert len(moved) == 5
    assert sum(interrupted) >= RETRY_KILLS * 0.8, "most kills came in the middle"
    print(f"sent again and left: {moved}; interrupted {sum(interrupted)} of {len(interrupted)}")


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_sigusr1_logs_every_stack_and_the_jobs_in_hand(app):
    worker = app.consume()
    worker.wait("worker.ready")
    app.enqueue(("nap", {"seconds": 30, "name": "long"}), ("anap", {"seconds": 30, "name": "anap"}))
    wait_for(lambda: {"start long", "start anap"} <= set(app.notes()))
    worker.signal(signal.SIGUSR1)
    jobs = worker.wait("dump.job", 2)
    stacks = {line["method"]: line["stack"] for line in jobs}
    assert "time.sleep(seconds)" in stacks["nap"]
    assert "asyncio.sleep(seconds)" in stacks["anap"]
    assert {line["method"]: line["state"] for line in jobs} == {"nap": "running", "anap": "awaiting"}
    assert all(line["running_seconds"] >= 0 and line["attempt"] == 1 for line in jobs)
    ours = {"MainThread", "receiver-1", "keeper", "deleter-1", "visibility", "coroutines"}
    wait_for(lambda: ours <= {line["thread"] for line in worker.named("dump.thread")}, what=lambda: str(worker))
    assert worker.stop()[0] == 0, "it goes on working until it is told to stop"


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_metrics_come_out_with_the_log_lines(app):
    worker = app.consume("--metrics", "emf", "--log-level", "error")
    app.enqueue(*[("noop", {})] * 20, ("fail", {}), ("no.such.job", {}))
    wait_for(lambda: app.counts() == (0, 2, 0), what=lambda: str(worker))
    assert worker.stop()[0] == 0
    found = {line.get("Method"): line for line in worker.lines if "_aws" in line}
    assert (found["noop"]["Done"], len(found["noop"]["Duration"])) == (20, 20)
    assert (found["fail"]["Failed"], found[None]["UnknownMethod"]) == (1, 1)
    assert found[None]["Queue"] == app.queue_url.rpartition("/")[2]


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_consume_says_once_at_its_start_what_check_would_say_of_the_queue(app, server_url, make_queue):
    app.queue_url = make_queue(server_url, attempts_max=2)
    worker = app.consume("--job-timeout", 0)
    worker.wait("worker.ready")
    found = wait_for(lambda: worker.named("check.finding"))
    assert {(line["subject"], line["level"]) for line in found} == {("attempts", "error"), ("job timeout", "warning")}
    assert all(line["why"] and line["cure"] for line in found)
    worker.kill()


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
@pytest.mark.parametrize("columns", [80, 120])
def test_a_watch_is_drawn_in_its_place_with_several_queues_and_what_the_workers_here_run(
    app, make_queue, server_url, tmp_path, columns
):
    """On a real terminal, beside a real worker; as its user sees it."""
    other = make_queue(server_url)
    worker = app.consume("--status-file", tmp_path / "worker-0.json")
    worker.wait("worker.ready")
    app.enqueue(("nap", {"seconds": 60}), ("anap", {"seconds": 60}))
    status = tmp_path / "worker-0.json"
    wait_for(lambda: status.exists() and '"nap"' in status.read_text(), what=lambda: str(worker))
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    words = ["--queue-url", app.queue_url, "--queue-url", other, "--status-file", tmp_path]
    env = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    watch = subprocess.Popen([*PROGRAM, "status", "--watch", *map(str, words)], stdout=terminal, env=env)
    os.close(terminal)
    drawn = ""
    with contextlib.suppress(OSError):  # of a terminal that nobody has any more
        while drawn.count("\x1b[J") < 2:
            drawn += os.read(screen, 65_536).decode()
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0
    os.close(screen)
    *_, last, _end = drawn.split("\x1b[J")
    lines = last.replace("\r", "").removeprefix("\x1b[H").replace("\x1b[K", "").splitlines()
    print(*lines, sep="\n")
    assert last.startswith("\x1b[H")
    assert "\x1b[2J" not in last
    assert max(map(len, lines)) <= columns
    urls = [url if len(url) <= columns else f"...{url[3 - columns :]}" for url in (app.queue_url, other)]
    assert [line for line in lines if line in urls] == urls
    assert re.search(r"  2 in flight  █{2,}\n", "\n".join(lines))
    assert any(line.startswith(f"worker {worker.process.pid}: polling, 2 in hand, 0 deleted") for line in lines)
    assert sorted(line.split(",")[0].strip() for line in lines if " x " in line) == ["1 x anap", "1 x nap"]


def test_a_watch_that_is_piped_is_plain_text_and_ascii_where_it_must_be(jobrunner, url, tmp_path):
    enqueue_many([("noop", {})] * 3, queue_url=url)
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "TERM": "xterm"}
    how = {"stdout": subprocess.PIPE, "text": True, "cwd": tmp_path, "env": env}
    watch = subprocess.Popen([*PROGRAM, "status", "--watch", "--queue-url", url], **how)
    shown = list(iter(watch.stdout.readline, "\n"))
    watch.send_signal(signal.SIGINT)
    assert watch.wait(10) == 0
    watch.stdout.close()
    assert shown[1] == f"{url}\n"
    assert shown[2] == "          3 visible    #\n"
    assert not any("\x1b" in line for line in shown)
