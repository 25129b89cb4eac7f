"""Spans, by the real SDK with an exporter that keeps them; the queue is stood in for."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

import jobrunner
from jobrunner.app.calling import Caller
from jobrunner.app.catalog import Catalog, Job
from jobrunner.app.coroutines import Coroutines
from jobrunner.message import BODY_BYTES_MAX, Delivery
from jobrunner.queue.schedules import INPUT_BYTES_MAX
from jobrunner.sending import delivery, producer
from jobrunner.settings import Settings
from jobrunner.telemetry import spans
from jobrunner.testing import enqueued
from jobrunner.worker.execution import Execution

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/shop-jobs"


@pytest.fixture
def exporter(monkeypatch):
    """Give an exporter that keeps what is ended, for this test only: a provider is for a process."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", URL)
    producer._spans.cache_clear()
    yield exporter
    producer._spans.cache_clear()


@pytest.fixture
def run(exporter, metrics, log):
    """Run what was collected, as a worker would."""

    def run(job, function, relation="link"):
        execution = Execution(
            catalog=Catalog(module="jobs", jobs={job.method: Job.of(job.method, function)}, left_out={}),
            caller=Caller(around=None, coroutines=Coroutines()),
            attempts_max=5,
            is_stopping=bool,
            spans=spans.Spans.of(Settings(queue_url=URL, trace=relation), log),
            metrics=metrics,
            log=log,
        )
        delivery = Delivery(message_id="m-1", receipt_handle="", body=job.body, attempt=2, sent_at=0)
        return execution.run(execution.prepare(delivery))

    return run


def send(method="job", **how):
    with enqueued() as jobs:
        jobrunner.enqueue(method, **how)
    return jobs[0]


def test_a_send_and_its_run_are_linked_and_named_by_the_conventions(exporter, run):
    job = send(id="j-1")
    run(job, lambda: None)
    sent, ran = exporter.get_finished_spans()
    print(sent.to_json(), ran.to_json())
    queue = {"messaging.system": "aws_sqs", "messaging.destination.name": "shop-jobs", "aws.sqs.queue.url": URL}
    assert (sent.name, sent.kind.name, ran.name, ran.kind.name) == (
        "send shop-jobs",
        "PRODUCER",
        "process shop-jobs",
        "CONSUMER",
    )
    assert dict(sent.attributes) == {
        **queue,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "jobrunner.method": "job",
        "jobrunner.job_id": "j-1",
    }
    assert dict(ran.attributes) == {
        **queue,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": "m-1",
        "jobrunner.method": "job",
        "jobrunner.job_id": "j-1",
        "jobrunner.attempt": 2,
    }
    (link,) = ran.links
    assert (link.context.span_id, link.context.trace_id) == (sent.context.span_id, sent.context.trace_id)
    assert ran.parent is None
    assert ran.context.trace_id != sent.context.trace_id
    traceparent = f"00-{sent.context.trace_id:032x}-{sent.context.span_id:016x}-"
    assert job.context["traceparent"].startswith(traceparent), "and so it is on every log line of the job"


def test_as_a_child_it_is_one_trace_from_the_web_request_to_what_the_job_does(exporter, run):
    from opentelemetry import trace

    tracer = trace.get_tracer("app")
    with tracer.start_as_current_span("POST /orders"):
        job = send(context={"request_id": "7"})
    assert job.context["request_id"] == "7"

    def work():
        with tracer.start_as_current_span("SELECT"):
            pass

    run(job, work, relation="parent")
    spans_by_name = {span.name: span for span in exporter.get_finished_spans()}
    chain = ["SELECT", "process shop-jobs", "send shop-jobs", "POST /orders"]
    for child, parent in pairwise(chain):
        assert spans_by_name[child].parent.span_id == spans_by_name[parent].context.span_id
    assert len({span.context.trace_id for span in spans_by_name.values()}) == 1


def test_a_job_that_a_job_sends_and_baggage_follow(exporter, run):
    from opentelemetry import baggage, context

    token = context.attach(baggage.set_baggage("tenant", "t-7"))
    job = send()
    context.detach(token)
    seen = []

    def work():
        seen.append((baggage.get_baggage("tenant"), send("next").context))

    run(job, work)
    ran = next(span for span in exporter.get_finished_spans() if span.kind.name == "CONSUMER")
    assert (seen[0][0], f"{ran.context.trace_id:032x}" in seen[0][1]["traceparent"]) == ("t-7", True)
    assert baggage.get_baggage("tenant") is None, "what a job has in hand ends with it"


def test_what_fails_says_so(exporter, run):
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    def work():
        raise Broken

    assert run(send(), work).name == "failed"
    ran = exporter.get_finished_spans()[-1]
    assert ran.attributes["error.type"].endswith("Broken")
    assert ran.status.status_code.name == "ERROR"
    (event,) = ran.events
    assert "Broken" in event.attributes["exception.stacktrace"]


def test_many_are_one_send(exporter):
    with enqueued() as jobs:
        jobrunner.enqueue_many([("a", None), ("b", None)])
    (sent,) = exporter.get_finished_spans()
    assert sent.attributes["messaging.batch.message_count"] == 2
    assert {f"{sent.context.span_id:016x}" in job.context["traceparent"] for job in jobs} == {True}


def test_a_send_that_fails_says_so(exporter, monkeypatch):
    def refuse(*_):
        raise jobrunner.QueueError("no")

    monkeypatch.setattr(delivery, "deliver", refuse)
    with pytest.raises(jobrunner.QueueError):
        jobrunner.enqueue("a")
    assert exporter.get_finished_spans()[0].attributes["error.type"] == "jobrunner.errors.QueueError"


def test_what_raises_is_said_once_and_hurts_nobody(exporter, run, events, monkeypatch, caplog):
    from opentelemetry import trace

    class Broken:
        def on_start(self, *_, **__):
            raise OSError("no collector")

    trace._TRACER_PROVIDER._active_span_processor._span_processors = (Broken(),)
    for _ in range(2):
        assert run(send(), lambda: None).name == "done"
    assert "OpenTelemetry: OSError: no collector" in events.named("courtesy.failed")[0]["error"]
    assert caplog.text.count("no collector") == 1


def test_without_a_provider_nothing_is_put_into_the_context(exporter, run, monkeypatch):
    from opentelemetry import trace

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    producer._spans.cache_clear()
    job = send()
    assert job.context == {}
    assert run(job, lambda: None).name == "done"


def test_where_the_app_does_not_use_it_nothing_of_it_is_imported():
    code = """
import os, sys, json
import jobrunner.worker.start, jobrunner.testing
os.environ["JOBRUNNER_QUEUE_URL"] = "https://sqs.eu-west-1.amazonaws.com/123456789012/q"
with jobrunner.testing.enqueued() as jobs:
    jobrunner.enqueue("a")
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]), jobs[0].context)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.split("] ")[0] + "]") == []
    assert done.stdout.endswith("{}\n")


@pytest.mark.parametrize("broken", [{"OTEL_PROPAGATORS": "nope"}, {"OTEL_PYTHON_TRACER_PROVIDER": "nope"}])
def test_variables_that_name_what_is_not_installed_cost_the_spans_and_no_job(broken):
    code = """
import opentelemetry.trace, os, jobrunner.testing, structlog
from jobrunner.settings import Settings
from jobrunner.telemetry.spans import Spans
os.environ["JOBRUNNER_QUEUE_URL"] = url = "https://sqs.eu-west-1.amazonaws.com/123456789012/q"
with jobrunner.testing.enqueued() as jobs:
    jobrunner.enqueue("a")
    jobrunner.enqueue_many([("b", None)])
made = Spans.of(Settings(queue_url=url), structlog.get_logger())
print(len(jobs), made)
"""
    command, env = [sys.executable, "-c", code], {**os.environ, **broken}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    assert done.stdout.endswith("2 None\n")
    assert "courtesy.failed" in done.stdout
    assert done.stderr.count("OpenTelemetry: ") == 1


def test_a_body_that_has_no_room_for_a_trace_goes_without(exporter):
    params = {"text": "x" * (BODY_BYTES_MAX - 90)}
    job = send(params=params, id="j")
    assert (job.context, job.params) == ({}, params)
    with enqueued() as jobs:
        jobrunner.enqueue_many([("job", params)])
        at = datetime.now(UTC) + timedelta(days=1)
        jobrunner.enqueue("job", {"text": "x" * (INPUT_BYTES_MAX - 130)}, id="k", at=at)
    assert [each.context for each in jobs] == [{}, {}]


def test_what_a_propagator_carries_beside_texts_is_left_out(exporter, monkeypatch):
    from opentelemetry import propagate

    monkeypatch.setattr(propagate, "inject", lambda carrier: carrier.update({"a": 1, "b": "2"}))
    assert send().context == {"b": "2"}


def test_an_error_that_cannot_be_shown_and_a_thread_that_cannot_start_hurt_nobody(exporter, run, events, monkeypatch):
    from opentelemetry import propagate

    class Unshowable(Exception):
        def __str__(self):
            raise RuntimeError

    def fail(*_):
        raise Unshowable

    monkeypatch.setattr(propagate, "extract", fail)
    assert run(send(), lambda: None).name == "done"
    assert events.one("courtesy.failed")["error"] == "OpenTelemetry: Unshowable, which cannot be shown"
    monkeypatch.setattr(threading.Thread, "start", fail)
    said = []
    assert spans.Spans.made(URL, "link", said.append).flush() is None
    assert len(said) == 1
