"""docs/opentelemetry.md, done as it says, in real processes: a request and its job are one trace."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import pages
import pytest
from servers import ROOT

PAGE = (ROOT / "docs" / "opentelemetry.md").read_text()
REQUEST = 'import web; print(web.app.test_client().post("/orders/7").status_code)'


def spans_in(text):
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        span, end = decoder.raw_decode(text)
        yield span
        text = text[end:]


@pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)
def test_a_request_and_its_job_are_one_trace_also_when_the_worker_stops_at_once(app, tmp_path):
    (app.folder / "jobs.py").unlink()
    for name, text in pages.files(PAGE).items():
        # A file in place of a collector; each process ends its own batch.
        to_file = f"ConsoleSpanExporter(out=open({str(tmp_path / 'spans')!r}, 'a'))"
        app.write(name, text.replace("ConsoleSpanExporter()", to_file))
    app.write("jobs/__init__.py", "")
    env = {**os.environ, "JOBRUNNER_QUEUE_URL": app.queue_url}
    worker = app.consume("--trace", "parent")
    request = [sys.executable, "-c", REQUEST]
    done = subprocess.run(request, check=False, capture_output=True, text=True, env=env, cwd=app.folder)
    assert done.stdout == "202\n", done.stderr
    (line,) = worker.wait("job.done")
    assert worker.stop()[0] == 0
    spans = {span["name"]: span for span in spans_in((tmp_path / "spans").read_text())}
    queue = app.queue_url.rpartition("/")[2]
    shown = [name.strip() for name in pages.blocks(PAGE, "text")[0].replace("shop-jobs", queue).splitlines()]
    assert {span["context"]["trace_id"] for span in spans.values()} == {spans[shown[0]]["context"]["trace_id"]}
    for parent, child in pairwise(shown):
        assert spans[child]["parent_id"] == spans[parent]["context"]["span_id"]
    assert spans[shown[0]]["context"]["trace_id"][2:] in line["traceparent"]
