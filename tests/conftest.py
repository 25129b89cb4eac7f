"""What all tests share: a captured log, AWS's variables pointed at nothing, and the two servers."""

import contextlib
import functools
import tempfile
import threading
from pathlib import Path

import lines
import pytest
import servers
import structlog
from hypothesis import settings
from moto.server import ThreadedMotoServer

from jobrunner.telemetry.metrics import Metrics

settings.register_profile("ours", deadline=None)  # these machines are noisy: no timed tests
settings.load_profile("ours")


class Events(list):
    """Log lines as dictionaries, in order, whatever thread wrote them."""

    def named(self, event):
        return [line for line in list(self) if line["event"] == event]

    def one(self, event):
        (line,) = self.named(event)
        return line


@pytest.fixture(autouse=True)
def aws(monkeypatch):
    """No test reaches AWS: dummy keys, and nothing of the machine's own configuration."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS", "AWS_PROFILE", "JOBRUNNER_QUEUE_URL", "JOBRUNNER_MODULE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("JOBRUNNER_ENQUEUE_SECONDS", "60")  # these machines are noisy, and tests run six at a time


@pytest.fixture(autouse=True)
def log_context():
    """What a page's code binds in this process is not the next test's."""
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def log(events):
    def capture(_logger, name, event):
        events.append({**event, "level": name})
        raise structlog.DropEvent

    yield structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(10))
    assert not [fault for event in list(events) for fault in lines.faults_of_call(event)]


@pytest.fixture
def metric_lines():
    return []


KNOWN = ("job", "a", "thumbnails.make", "newsletter.write")


@pytest.fixture
def metrics(metric_lines):
    """Give real metrics whose lines are kept."""
    return Metrics(queue_name="jobs", methods=KNOWN, in_flight=lambda: 3, write=metric_lines.append)


@pytest.fixture(scope="session")
def moto_url():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


SHARED = pytest.StashKey()
#: Nobody starts the shared one again, and writing all to a disk would be a quarter of its work.
in_memory = functools.partial(servers.ElasticMQ, in_memory=True, quick=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Start the long tests first, one to a process, so that all others run beside them."""
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    pairs = zip(long, rest, strict=False)
    items[:] = [item for pair in pairs for item in pair] + rest[len(long) :] + long[len(rest) :]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Start one server of each kind for all processes of a parallel run: one for each would cost more than it saves."""
    if SHARED not in node.config.stash:
        folder = tempfile.TemporaryDirectory()
        started = {"elasticmq": in_memory(Path(folder.name)), "ministack": servers.MiniStack(Path(folder.name))}
        node.config.stash[SHARED] = folder, started
        for server in started.values():
            with contextlib.suppress(servers.NotHere):  # each test that needs it says so
                server.start()
    _, started = node.config.stash[SHARED]
    node.workerinput["servers"] = {kind: server.url for kind, server in started.items() if server.process}


def pytest_unconfigure(config):
    if SHARED in config.stash:
        folder, started = config.stash[SHARED]
        for server in started.values():
            if server.process:
                server.kill()
        folder.cleanup()


def pytest_sessionfinish(session):
    """Hand on, from each process of a parallel run, how many lines of workers it has held against the schema."""
    if output := getattr(session.config, "workeroutput", None):
        output["lines"] = dict(lines.CHECKED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    lines.CHECKED.update(getattr(node, "workeroutput", {}).get("lines", {}))


def pytest_terminal_summary(terminalreporter):
    if lines.CHECKED:
        count, kinds = lines.CHECKED.total(), len(lines.CHECKED)
        terminalreporter.write_line(f"{count:,} lines of {kinds} kinds checked against docs/events.schema.json")


def server_of(kind, make, config):
    """Give the URL of the server that all processes share, or of one of this process's own."""
    if shared := getattr(config, "workerinput", {}).get("servers", {}).get(kind):
        yield shared
        return
    with tempfile.TemporaryDirectory() as folder:
        with servers.skipping_what_is_not_here():
            server = make(Path(folder)).start()
        yield server.url
        server.kill()  # it would wait for every long poll first


@pytest.fixture(scope="session")
def elasticmq_url(request):
    yield from server_of("elasticmq", in_memory, request.config)


@pytest.fixture(scope="session")
def ministack_url(request):
    yield from server_of("ministack", servers.MiniStack, request.config)


@pytest.fixture(params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def server_url(request):
    """Each test that uses this runs once on each server."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def make_queue(request):
    """Make queues with dead letters; gives the URL."""
    return lambda server_url, **attributes: servers.make_queue(server_url, request.node.name, **attributes)


@pytest.fixture
def client():
    """Give a plain boto3 client for looking at what ours did."""
    return servers.client_of


@pytest.fixture(autouse=True)
def threads_end_quietly(monkeypatch):
    """An exception that leaves a thread fails the test it belongs to."""
    died = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    yield
    assert not died, died
