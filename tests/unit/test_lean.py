"""Our own way of asking SQS: which connection, signed by whom, and what comes of a host that does not behave."""

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.client import BaseClient

from jobrunner.errors import AccessDenied, QueueError, QueueNotFound
from jobrunner.queue import connections, lean
from jobrunner.queue import requests as sqs
from jobrunner.queue.endpoint import Endpoint
from jobrunner.queue.lean import LeanClient

#: How long a host hangs at the least; no other test is about the time that it takes.
HANGS_SECONDS = 2


class Host(ThreadingHTTPServer):
    """Answers as it is told, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://localhost:{self.server_port}/1/jobs"
        self.asked, self.opened = [], 0
        self.status, self.answer, self.more = 200, {"Messages": []}, {}
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, *_):
        """A client that gives up, or does not trust us, is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.opened += 1

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((dict(self.headers), json.loads(body)))
        if self.server.status is None:
            time.sleep(2 * HANGS_SECONDS)
        data = json.dumps(self.server.answer).encode()
        self.send_response(self.server.status or 200)
        for name, value in {"Content-Length": len(data), **self.server.more}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def served(tls=None):
    host = Host(tls)
    yield host
    host.shutdown()
    host.server_close()


@pytest.fixture
def host():
    with served() as found:
        yield found


@pytest.fixture
def queue(host):
    return queue_at(host.url)


def queue_at(url, read_seconds=60):
    client = Endpoint(url).lean_client(read_seconds=read_seconds, attempts=1, connections=2, connect_seconds=60)
    assert isinstance(client, LeanClient)
    return sqs.Queue(url=url, polling=client, working=client)


def receive(queue):
    return queue.receive(most=10, wait_seconds=0, visibility_timeout_seconds=30)


def test_it_is_signed_and_asks_as_botocore_does(queue, host):
    assert receive(queue) == []
    headers, body = host.asked[0]
    assert headers["X-Amz-Target"] == "AmazonSQS.ReceiveMessage"
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")
    assert headers["User-Agent"].startswith("jobrunner botocore/")
    assert (body["QueueUrl"], body["MaxNumberOfMessages"]) == (host.url, 10)


def test_one_connection_serves_one_request_after_another(queue, host):
    for _ in range(5):
        receive(queue)
    assert (len(host.asked), host.opened) == (5, 1)


def test_one_that_the_other_side_has_closed_meanwhile_is_not_used(queue, host, monkeypatch):
    monkeypatch.setattr(connections, "FRESH_SECONDS", 0)
    host.more = {"Keep-Alive": "timeout=0"}
    receive(queue)
    queue._polling._connections._resting[0][0].sock.shutdown(socket.SHUT_RD)  # as its end looks from here
    receive(queue)
    assert (len(host.asked), host.opened) == (2, 2)


def test_one_that_says_close_is_closed(queue, host):
    host.more = {"Connection": "close"}
    receive(queue)
    receive(queue)
    assert host.opened == 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "com.amazonaws.sqs#QueueDoesNotExist", QueueNotFound),
        (403, "com.amazon.coral.service#AccessDeniedException", AccessDenied),
        (503, "com.amazon.coral.service#ServiceUnavailable", QueueError),
    ],
)
def test_errors_are_botocores(queue, host, status, code, kind):
    host.status, host.answer = status, {"__type": code, "message": "no"}
    with pytest.raises(kind) as raised:
        receive(queue)
    assert type(raised.value) is kind


def test_a_host_that_hangs_is_given_up_in_time(host):
    queue = queue_at(host.url, read_seconds=HANGS_SECONDS)
    host.status = None
    with pytest.raises(QueueError, match="SQS did not answer: Read timeout"):
        receive(queue)
    host.status = 200
    assert receive(queue) == []


def test_no_host_at_all_and_no_credentials_say_so(host, monkeypatch):
    with pytest.raises(QueueError, match="Could not connect to the endpoint URL"):
        receive(queue_at("http://127.0.0.1:1/1/jobs"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(AccessDenied, match="no AWS credentials"):
        receive(queue_at(host.url))


@pytest.fixture
def certificate(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl on this machine")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout key.pem -out cert.pem -subj /CN=localhost"
    more = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *more], check=True, capture_output=True, cwd=tmp_path)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def test_tls_trusts_what_botocore_trusts_and_nobody_else(certificate, monkeypatch):
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with served(context) as host:
        with pytest.raises(QueueError, match="CERTIFICATE_VERIFY_FAILED"):
            receive(queue_at(host.url))
        monkeypatch.setattr(lean, "get_cert_path", lambda _: str(certificate[0]))
        assert receive(queue_at(host.url)) == []


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        ("http://sqs.test/1/jobs", "HTTP_PROXY", "http://proxy.test:3128"),
        ("https://sqs.test/1/jobs", "AWS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt"),
        ("https://sqs.test/1/jobs", "REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt"),
    ],
)
def test_where_the_way_is_unusual_botocores_client_goes_it(url, name, value, monkeypatch):
    for each in ("NO_PROXY", "no_proxy", "http_proxy", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value)
    how = {"read_seconds": 1, "attempts": 1, "connections": 1, "connect_seconds": 1}
    assert isinstance(Endpoint(url).lean_client(**how), BaseClient)
