"""docs/tracing.md, done as it says: one request's id and trace on every line of all that came of it."""

import importlib
import json
import sys

import pages
import pytest
import structlog
from servers import ROOT

PAGE = (ROOT / "docs" / "tracing.md").read_text()
SHOWN = [json.loads(line) for text in pages.blocks(PAGE, "json") for line in text.splitlines()]


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_a_request_and_its_jobs_have_one_id_on_every_line(app, events, monkeypatch):
    (app.folder / "jobs.py").unlink()
    for name, text in pages.files(PAGE).items():
        app.write(name, text)
    app.write("jobs/__init__.py", "")
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", app.queue_url)
    monkeypatch.syspath_prepend(str(app.folder))
    worker = app.consume(env={"JOBRUNNER_QUEUE_URL": app.queue_url})

    def capture(_logger, _name, event):
        events.append(event)
        raise structlog.DropEvent

    with_context = [structlog.contextvars.merge_contextvars, capture]
    monkeypatch.setitem(sys.modules, "web", None)  # the demo's, where another test has loaded it
    del sys.modules["web"]
    structlog.configure(processors=with_context)
    web = importlib.import_module("web").app.test_client()
    headers = {"X-Request-Id": SHOWN[0]["request_id"], "traceparent": SHOWN[0]["traceparent"]}
    assert web.post("/orders/7", headers=headers).status_code == 202
    worker.wait("job.done", 2)
    structlog.reset_defaults()
    lines = [*events, *(line for line in worker.lines if line.get("request_id"))]
    keys = ("event", "request_id", "traceparent", "method", "number")
    found = [{key: line[key] for key in keys if key in line} for line in lines]
    in_any_order = [{key: line[key] for key in keys if key in line} for line in SHOWN]
    assert sorted(map(str, found)) == sorted(map(str, in_any_order)), "the second job may be done before the first"
