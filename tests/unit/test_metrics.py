"""Metrics against the specification of CloudWatch's embedded metric format."""

import json
import re

import jsonschema
import pytest

from jobrunner.telemetry.metrics import Metrics

#: Written from the specification: what PutLogEvents takes a metric from, and AWS's limits.
METRIC = {
    "type": "object",
    "required": ["Name"],
    "properties": {
        "Name": {"type": "string", "minLength": 1, "maxLength": 1024},
        "Unit": {"enum": ["Count", "Milliseconds"]},
        "StorageResolution": {"enum": [1, 60]},
    },
    "additionalProperties": False,
}
DIRECTIVE = {
    "type": "object",
    "required": ["Namespace", "Dimensions", "Metrics"],
    "properties": {
        "Namespace": {"type": "string", "pattern": r"^[a-zA-Z0-9._#:/-]{1,256}$"},
        "Dimensions": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "maxItems": 30, "items": {"type": "string", "minLength": 1, "maxLength": 250}},
        },
        "Metrics": {"type": "array", "minItems": 1, "maxItems": 100, "items": METRIC},
    },
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 10**12},
                "CloudWatchMetrics": {"type": "array", "minItems": 1, "items": DIRECTIVE},
            },
        },
    },
    "additionalProperties": {
        "anyOf": [
            {"type": "number"},
            {"type": "string", "minLength": 1, "maxLength": 1024},
            {"type": "array", "minItems": 1, "maxItems": 100, "items": {"type": "number"}},
        ]
    },
}


def parsed(lines):
    """Check every line against the specification; returns them as objects."""
    documents = []
    for line in lines:
        assert len(line.encode()) < 4096
        assert "\n" not in line
        document = json.loads(line)
        jsonschema.validate(document, SCHEMA)
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        for name in {metric["Name"] for metric in directive["Metrics"]}:
            assert isinstance(document[name], int | float | list), "a metric's value is a root member"
        for key in {key for keys in directive["Dimensions"] for key in keys}:
            assert isinstance(document[key], str), "so is a dimension's"
        documents.append(document)
    return documents


def test_outcomes_and_times_are_counted_by_method_and_for_the_queue(metrics, metric_lines):
    metrics.job("done", method="thumbnails.make", times_ms=(12.5, 40))
    metrics.job("done", method="thumbnails.make", times_ms=(7.5, 60))
    metrics.job("failed", method="thumbnails.make", times_ms=(1.0, 50))
    metrics.job("bad_params", method="newsletter.write")
    for name in ("leases_lost", "receive_errors", "receive_errors", "handed_back"):
        metrics.event(name)
    metrics.flush(InFlight=4)
    queue, thumbnails, newsletter = parsed(metric_lines)
    assert (queue["InFlight"], queue["LeasesLost"], queue["ReceiveErrors"], queue["HandedBack"]) == (4, 1, 2, 1)
    assert (thumbnails["Method"], thumbnails["Done"], thumbnails["Failed"]) == ("thumbnails.make", 2, 1)
    assert (thumbnails["Duration"], thumbnails["QueueLatency"]) == ([12.5, 7.5, 1.0], [40, 60, 50])
    assert thumbnails["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Queue"], ["Queue", "Method"]]
    assert newsletter["BadParams"] == 1
    metrics.flush()
    assert len(metric_lines) == 3, "each is told once"


def test_lines_come_once_an_interval(metric_lines):
    now = [0.0]
    metrics = Metrics(
        queue_name="jobs", methods=["a.b"], in_flight=lambda: 3, write=metric_lines.append, clock=lambda: now[0]
    )
    for second in range(181):
        now[0] = float(second)
        metrics.job("done", method="a.b", times_ms=(1.0, 1))
        metrics.tick()
    documents = parsed(metric_lines)
    assert [document["Done"] for document in documents if "Method" in document] == [61, 60, 60]
    assert [document["InFlight"] for document in documents if "Method" not in document] == [3, 3, 3]


@pytest.mark.parametrize("name", ["m" * 2000, "größe.ändern", 'quo"te\\'])
def test_any_number_of_jobs_and_any_name_fit_the_limits(metric_lines, name):
    methods = [name, *(f"{name}{number:03}" for number in range(200))]
    metrics = Metrics(queue_name="jobs", methods=methods, in_flight=lambda: 3, write=metric_lines.append)
    for number in range(10_000):
        metrics.job("done", method=name, times_ms=(number * 1.1 + 1_000_000, 43_200_000 + number))
    for method in reversed(methods):
        metrics.job("failed", method=method, times_ms=(1.0, 1))
    metrics.flush()
    documents = parsed(metric_lines)
    assert len(documents) == 51, "methods beyond the bound are one: other"
    assert {document["Failed"] for document in documents if document["Method"] == "other"} == {151}
    assert sum(document.get("Failed", 0) for document in documents) == 201
    assert documents[0]["Done"] == 10_000
    assert 50 <= len(documents[0]["Duration"]) <= 100


def test_the_methods_that_have_metrics_of_their_own_do_not_depend_on_what_comes_first(metric_lines):
    """Else each process would name fifty others each minute, and each name is billed."""
    methods = [f"m{number:03}" for number in range(60)]
    metrics = Metrics(queue_name="jobs", methods=methods, in_flight=lambda: 3, write=metric_lines.append)
    for method in ("m059", "m000", "not.a.job"):
        metrics.job("done", method=method)
    metrics.flush()
    assert [document["Method"] for document in parsed(metric_lines)] == ["other", "m000"]


def test_totals_have_no_methods(metric_lines):
    metrics = Metrics(queue_name="jobs", methods=(), in_flight=lambda: 3, write=metric_lines.append)
    for method in ("a", "b"):
        metrics.job("done", method=method, times_ms=(1.0, 2))
    metrics.flush()
    (line,) = parsed(metric_lines)
    assert (line["Done"], line["Duration"], "Method" in line) == (2, [1.0, 1.0], False)
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Queue"]]


def test_names_are_plain(metrics, metric_lines):
    for name in ("done", "failed", "expired", "bad_params"):
        metrics.job(name, method="a")
    metrics.flush()
    assert re.findall(r'"Name":"(\w+)"', metric_lines[0]) == ["Done", "Failed", "Expired", "BadParams"]
