"""The table of events: what the code says is in it, and nothing else."""

import json
import re

import lines
import pytest
from jsonschema import Draft202012Validator
from servers import ROOT

from jobrunner.telemetry import events

NAME = r'"([a-z_]+\.[a-z_{}]+)"'
SAID = re.compile(rf'log\.(?:info|warning|error|critical)\(\s*f?{NAME}|"event": {NAME}|say\({NAME},')
#: Numbers that count nothing, and so have no unit.
ORDINALS = ("attempt", "code", "pid", "worker_pid")
STOPPED = {
    "timestamp": "2026-11-24T09:00:00.000Z",
    "level": "info",
    "event": "worker.stopped",
    "pid": 7,
    "code": 0,
    "handed_back_count": 0,
    "undeleted_count": 0,
    "alone_count": 0,
}


def test_what_the_code_says_is_in_the_table_and_nothing_else_is():
    sources = [*(ROOT / "consumer").rglob("*.py"), ROOT / "deploy" / "start.py"]
    found = [match for path in sources for match in SAID.findall(path.read_text())]
    said = {name for names in found for name in names if name}
    assert said - {"job.{name}"} | {"job.malformed", "job.bad_params", "job.unknown_method"} == set(events.EVENTS)


def test_the_schema_is_one_and_knows_what_it_should():
    Draft202012Validator.check_schema(lines.SCHEMA)
    assert json.loads(json.dumps(events.schema())) == lines.SCHEMA


@pytest.mark.parametrize(
    "name", [name for name, field in events.FIELDS.items() if re.search("integer|number", field.type)]
)
def test_a_number_says_its_unit_in_its_name(name):
    assert name.endswith(tuple(events.UNITS)) or name in ORDINALS


def test_every_field_is_used():
    used = {name for event in events.EVENTS.values() for name, _ in event.fields()}
    assert used == set(events.FIELDS)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"code": "0"}, "'0' is not of type 'integer'"),
        ({"level": "debug"}, "'debug' is not one of"),
        ({"more": 1}, "Additional properties are not allowed"),
        ({"alone_count": -1}, "-1 is less than the minimum"),
        ({"event": "worker.stoped"}, "there is no event worker.stoped"),
        ({"event": "order.paid", "more": 1}, None),
    ],
)
def test_a_line_that_breaks_the_contract_is_found(change, fault):
    line = STOPPED | change
    faults = lines.faults_of(line)
    assert (fault in faults[0]) if fault else not faults
    if fault and "no event" not in fault:
        assert not lines.WHOLE.is_valid(line), "the whole schema agrees"


def test_a_line_must_have_its_fields():
    assert "'code' is a required property" in lines.faults_of({k: v for k, v in STOPPED.items() if k != "code"})[0]
