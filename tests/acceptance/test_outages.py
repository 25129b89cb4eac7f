"""SQS is down, slow, throttling, lossy or gone: one line at the start, one at the end, and nothing is lost."""

import signal
import time

import pytest
from proxy import Proxy
from servers import wait_for

#: What one fault lasts here; the worker's long poll is 2 s, so that each kind is met within it.
FAULT_SECONDS = 12

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
]


@pytest.fixture
def proxy(server_url):
    between = Proxy(server_url)
    yield between
    between.end_faults()
    between.refuse()


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
    wait_for(lambda: app.counts() == (0, 0, 0), 20, lambda: f"{app.counts()} {worker}")
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
    assert worker.end(30) == 5, str(worker)
    assert len(worker.named("sqs.outage")) == 1


def test_a_queue_deleted_and_created_again_is_found_again(app, worker, server_url, client):
    sqs = client(server_url)
    name = app.queue_url.rsplit("/", 1)[1]
    attributes = sqs.get_queue_attributes(QueueUrl=app.queue_url, AttributeNames=["RedrivePolicy"])["Attributes"]
    sqs.delete_queue(QueueUrl=app.queue_url)
    worker.wait("sqs.outage")
    sqs.create_queue(QueueName=name, Attributes=attributes)
    app.enqueue(("note", ["again"]))
    wait_for(lambda: "again" in app.notes(), 10, lambda: str(worker))
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
