"""SQS is down, slow, throttling, lossy or gone: one line at the start, one at the end, and nothing is lost."""

import contextlib
import signal
import socket
import time

import pytest
from servers import wait_for

from jobrunner.operate import workers

#: What one fault lasts here; the worker's long poll is 2 s, so that each kind is met within it.
FAULT_SECONDS = 12

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
]


@pytest.fixture
def worker(app, proxy):
    """A worker behind the proxy, at work."""
    started = app.consume(env={"AWS_ENDPOINT_URL_SQS": proxy.url})
    started.wait("worker.ready")
    return started


@pytest.mark.parametrize(
    ("kind", "actions"),
    [
        ("refuse", None),
        ("reset", None),
        ("hang", None),
        ("unavailable", None),
        ("throttle", None),
        ("lost", None),
        ("unavailable", ["DeleteMessageBatch"]),
        ("lost", ["DeleteMessageBatch"]),
        ("unavailable", ["ReceiveMessage"]),
    ],
)
def test_one_line_at_each_end_few_requests_between_and_work_within_5_s(app, worker, proxy, kind, actions):
    app.enqueue(*[("nap", {"seconds": 0.5, "name": f"before{n}"}) for n in range(8)])
    wait_for(lambda: len(app.notes()) >= 8)
    started = time.monotonic()
    proxy.refuse() if kind == "refuse" else proxy.fault(kind, actions=actions)
    worker.wait("sqs.outage", seconds=FAULT_SECONDS)
    time.sleep(max(0, started + FAULT_SECONDS - time.monotonic()))
    ended = time.monotonic()
    proxy.accept() if kind == "refuse" else proxy.end_faults()
    app.enqueue(("note", ["after"]))
    wait_for(lambda: "after" in app.notes(), 5, lambda: str(worker))
    wait_for(lambda: app.counts() == (0, 0, 0), 60, lambda: f"{app.counts()} {worker}")
    worker.wait("sqs.recovered")
    assert len(worker.named("sqs.outage")) == len(worker.named("sqs.recovered")) == 1, str(worker)
    during = [action for action in proxy.between(started + 1, ended) if actions is None or action in actions]
    assert len(during) <= FAULT_SECONDS, during
    ends = [note for note in app.notes() if note.startswith("end before")]
    assert sorted(ends) == sorted(set(ends)), "no job ran twice: each lease outlived the outage"
    assert worker.stop()[0] == 0


def test_access_that_is_taken_away_ends_the_process_after_its_time_and_code(app, proxy, monkeypatch):
    script = "import jobrunner.queue.outage; jobrunner.queue.outage.LASTING_SECONDS_MAX = 4\n"
    app.write("jobs.py", script + "def noop(): pass\n")
    worker = app.consume(env={"AWS_ENDPOINT_URL_SQS": proxy.url})
    worker.wait("worker.ready")
    proxy.fault("denied")
    assert worker.end() == 5, str(worker)
    assert len(worker.named("sqs.outage")) == 1


def test_a_queue_deleted_and_created_again_is_found_again(app, worker, server_url, client):
    sqs = client(server_url)
    name = app.queue_url.rsplit("/", 1)[1]
    attributes = sqs.get_queue_attributes(QueueUrl=app.queue_url, AttributeNames=["RedrivePolicy"])["Attributes"]
    sqs.delete_queue(QueueUrl=app.queue_url)
    worker.wait("sqs.outage")
    sqs.create_queue(QueueName=name, Attributes=attributes)
    app.enqueue(("note", ["again"]))
    wait_for(lambda: "again" in app.notes(), 60, lambda: str(worker))
    worker.wait("sqs.recovered")


def test_a_worker_that_starts_before_its_queue_waits_for_it(app, proxy):
    proxy.refuse()
    worker = app.consume(env={"AWS_ENDPOINT_URL_SQS": proxy.url})
    worker.wait("sqs.outage")
    worker.signal(signal.SIGUSR1)  # nothing to show yet, and no reason to die
    proxy.accept()
    worker.wait("worker.ready")
    worker.wait("sqs.recovered")


def test_a_finished_job_is_deleted_even_after_its_lease_has_ended(app, proxy):
    """SQS deletes with the old handle unless it has handed the message out again; we say that it may have."""
    worker = app.consume("--visibility-timeout", 10, env={"AWS_ENDPOINT_URL_SQS": proxy.url})
    worker.wait("worker.ready")
    proxy.fault("unavailable", actions=["DeleteMessageBatch", "ChangeMessageVisibilityBatch"])
    app.enqueue(("note", ["once"]))
    (line,) = worker.wait("job.lease_lost", seconds=30)
    assert "may run again" in line["effect"]
    proxy.end_faults()
    app.wait_until_empty()
    assert app.notes() == ["once"], "and here nobody else had it"


RESOLVER = """
import os, socket, time
HOST = os.environ["FAKE_HOST"]
real = socket.getaddrinfo
def getaddrinfo(host, port, *words, **named):
    if host != "sqs.test":
        return real(host, port, *words, **named)
    trouble = os.path.exists(os.environ["TROUBLE"])
    if trouble and HOST == "slow":
        time.sleep(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    addresses = [f"127.0.0.{n}" for n in range(2, 6)] if trouble else ["127.0.0.1"]
    return [found for address in addresses for found in real(address, port, *words, **named)]
socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["slow", "black holes", "hang"])
def test_an_sqs_that_cannot_even_be_reached_ends_no_process(app, proxy, kind, tmp_path):
    """Names that resolve in half a minute, four addresses that drop packets, requests that hang; many jobs in hand."""
    app.write("patch/sitecustomize.py", RESOLVER)
    url = f"http://sqs.test:{proxy.port}"
    status = tmp_path / "status.json"
    words = ["--visibility-timeout", 15, "--threads", 60, "--status-file", status]
    env = {"FAKE_HOST": kind, "TROUBLE": str(tmp_path / "trouble"), "PYTHONPATH": str(app.folder / "patch")}
    worker = app.consume(*words, env={"AWS_ENDPOINT_URL_SQS": url, **env})
    worker.wait("worker.ready")
    app.enqueue(*[("nap", {"seconds": 30, "name": str(n)}) for n in range(60)])
    wait_for(lambda: len(app.notes()) == 60, 30, lambda: f"{len(app.notes())} {worker}")
    with black_holes(proxy.port) if kind == "black holes" else contextlib.nullcontext():
        (tmp_path / "trouble").touch()
        proxy.fault("hang") if kind == "hang" else proxy.server.cut()
        started = time.monotonic()
        while time.monotonic() < started + 45:
            assert worker.process.poll() is None, str(worker)
            assert workers.judge(status)[0], workers.judge(status)
            time.sleep(1)
        assert "unreachable, retrying" in workers.judge(status)[1]
    (tmp_path / "trouble").unlink()
    proxy.end_faults()
    wait_for(lambda: app.counts() == (0, 0, 0), 90, lambda: f"{app.counts()} {worker}")
    ends = [note for note in app.notes() if note.startswith("end")]
    assert len(set(ends)) == 60
    said = {line["message_id"] for line in worker.named("job.lease_lost") + worker.named("lease.lost")}
    assert len(ends) - 60 <= len(said)
    assert worker.stop()[0] == 0


@contextlib.contextmanager
def black_holes(port):
    """Listen on four more addresses with lines that are full: what comes then is dropped."""
    with contextlib.ExitStack() as stack:
        for n in range(2, 6):
            server = stack.enter_context(socket.socket())
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((f"127.0.0.{n}", port))
            server.listen(0)
            for _ in range(3):
                filler = stack.enter_context(socket.socket())
                filler.settimeout(0)
                filler.connect_ex((f"127.0.0.{n}", port))
        yield
