"""docs/sentry.md, done as it says: the real SDK, and what reaches the address it was given."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pages
import pytest
from servers import ROOT, wait_for

from jobrunner import enqueue

PAGE = (ROOT / "docs" / "sentry.md").read_text()
APP = """
import time
from flask import Flask
from sentry_sdk.transport import HttpTransport
app = Flask("shop")
send = HttpTransport._send_request
def send_far_away(*words, **named):
    time.sleep(0.2)  # as to shake hands takes: until then nothing has left the process
    send(*words, **named)
HttpTransport._send_request = send_far_away
"""
JOBS = """
import asyncio, threading
from flask import current_app
from jobrunner import current_job
together = threading.Barrier(2)
def wait_for_the_other():
    if current_job().attempt == 1:
        together.wait(10)
def fail():
    wait_for_the_other()
    raise ValueError("plain in " + current_app.name)
async def fail_async():
    await asyncio.to_thread(wait_for_the_other)
    raise ValueError("async in " + current_app.name)
"""


@pytest.fixture
def sentry():
    """Stand in for Sentry; gives its address and the list of what it was told."""
    told = []

    class Ingest(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            told.extend(line for line in map(json.loads, body.splitlines()) if "exception" in line)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ingest)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://key@127.0.0.1:{server.server_port}/1", told
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_each_failure_is_told_once_with_its_own_tags_also_from_a_last_attempt(app, sentry, make_queue, server_url):
    address, told = sentry
    ((path, code),) = pages.files(PAGE).items()
    app.write(path, code)
    app.write("web/__init__.py", "")
    app.write("web/app.py", APP)
    app.write("jobs.py", JOBS)
    app.queue_url = make_queue(server_url, attempts_max=2)
    ids = {
        name: enqueue(name, context={"request_id": f"request of {name}"}, queue_url=app.queue_url)
        for name in ("fail", "fail_async")
    }
    worker = app.consume(*pages.told(PAGE), env={"SENTRY_DSN": address})
    worker.wait("job.failed", 4, seconds=60)
    wait_for(lambda: len(told) == 4, 60, lambda: told)
    found = [(event["transaction"], event["exception"]["values"][-1]["value"], event["tags"]) for event in told]
    for name, error in (("fail", "plain in shop"), ("fail_async", "async in shop")):
        for attempt in "12":
            tags = {"request_id": f"request of {name}", "job_id": ids[name], "attempt": attempt}
            assert (name, error, tags) in found
