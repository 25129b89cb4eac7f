"""The wire format, both ways."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.errors import MalformedMessage
from jobrunner.message import BODY_BYTES_MAX, DEPTH_MAX, Call, decode, encode

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}(\.[a-z][a-z0-9_]{0,8}){0,2}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
calls = st.builds(
    Call,
    method=names,
    params=st.dictionaries(st.text(), json_values, max_size=4) | st.lists(json_values, max_size=4),
    context=st.dictionaries(st.text(), st.text(), max_size=3),
    id=st.none() | st.text(min_size=1, max_size=40),
    scheduled_at=st.none() | st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()),
    max_age_seconds=st.none() | st.integers(min_value=1, max_value=10**9),
)


@given(calls)
def test_encode_then_decode_is_the_identity(call):
    assert decode(encode(call)) == call


@given(calls)
def test_a_body_is_ascii_so_that_sqs_never_refuses_a_character(call):
    assert encode(call).isascii()


@given(st.binary(max_size=200) | st.text(max_size=200) | json_values.map(json.dumps))
def test_any_bytes_are_a_call_or_a_malformed_message(body):
    try:
        assert isinstance(decode(body), Call)
    except MalformedMessage as error:
        assert str(error)


@given(calls, st.data())
def test_a_damaged_body_is_a_call_or_a_malformed_message(call, data):
    body = bytearray(encode(call), "ascii")
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(body))
    except MalformedMessage as error:
        assert str(error)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "not JSON"),
        ("nonsense", "not JSON"),
        ('{"method": "a"} x', "not JSON"),
        ("[]", "an array, not an object"),
        ("null", "missing or null, not an object"),
        (b"\xff\xfe", "not UTF-8"),
        ("{}", "method is missing"),
        ('{"method": 1}', "method is a number"),
        ('{"method": ""}', "not dotted Python names"),
        ('{"method": "os._exit"}', "without a leading underscore"),
        ('{"method": "a..b"}', "not dotted Python names"),
        ('{"method": "a b"}', "not dotted Python names"),
        ('{"method": "a", "params": 1}', "params is a number"),
        ('{"method": "a", "params": null}', "params is missing or null"),
        ('{"method": "a", "params": {"x": NaN}}', "NaN"),
        ('{"method": "a", "params": {"x": -Infinity}}', "-Infinity"),
        ('{"method": "a", "params": {"x": 1e999}}', "out of range"),
        ('{"method": "a", "params": {"x": 1, "x": 2}}', "same key twice"),
        ('{"method": "a", "method": "b"}', "same key twice"),
        ('{"method": "a", "params": [' + "9" * 5000 + "]}", "not JSON"),
        ('{"method": "a", "params": ' + "[" * 100_000 + "]" * 100_000 + "}", "nests deeper"),
        ('{"method": "a", "params": ' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}", "nests deeper"),
        ('{"method": "a", "context": {"x": 1}}', "context is not an object of strings"),
        ('{"method": "a", "context": []}', "context is not an object of strings"),
        ('{"method": "a", "id": ""}', "id is not a string"),
        ('{"method": "a", "id": 7}', "id is not a string"),
        ('{"method": "a", "scheduled_at": "soon"}', "ISO 8601"),
        ('{"method": "a", "scheduled_at": "2026-11-23T09:00:00"}', "with its offset"),
        ('{"method": "a", "max_age_seconds": 0}', "at least 1"),
        ('{"method": "a", "max_age_seconds": true}', "at least 1"),
        ('{"method": "a", "params": ["' + "x" * BODY_BYTES_MAX + '"]}', "over 1,048,576 bytes"),
    ],
)
def test_what_is_not_the_wire_format_is_named(body, says):
    with pytest.raises(MalformedMessage, match=says):
        decode(body)


def test_unknown_members_are_ignored():
    assert decode('{"method": "a", "priority": 9}') == Call(method="a")


def test_as_deep_as_allowed_goes_both_ways():
    params = []
    for _ in range(DEPTH_MAX - 2):
        params = [params]
    call = Call(method="a", params=params)
    assert decode(encode(call)) == call
    with pytest.raises(MalformedMessage, match="nests deeper"):
        encode(Call(method="a", params=[params]))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"size": (1, 2)}, r"params\.size is a tuple"),
        ({"when": object()}, r"params\.when is a object"),
        ({"ids": [1, {2: 3}]}, r"params\.ids\[1\] has the key 2"),
        ({"x": float("nan")}, r"params\.x is nan"),
        ([float("inf")], r"params\[0\] is inf"),
        ([10**5000], "over 4300 digits"),
        ({"s": {1, 2}}, r"params\.s is a set"),
        ({"blob": "x" * BODY_BYTES_MAX}, "SQS takes 1,048,576"),
    ],
)
def test_what_json_would_change_or_refuse_is_not_sent(params, says):
    with pytest.raises(MalformedMessage, match=says):
        encode(Call(method="a", params=params))


@pytest.mark.parametrize("method", ["", "_x", "a._b", "a-b", "os.__class__"])
def test_a_name_no_worker_can_have_is_not_sent(method):
    with pytest.raises(MalformedMessage, match="not dotted Python names"):
        encode(Call(method=method))


def test_a_time_that_scheduler_did_not_fill_in_is_named():
    body = '{"method": "a", "scheduled_at": "<aws.scheduler.scheduled-time>"}'
    with pytest.raises(MalformedMessage, match="EventBridge Scheduler replaces when it fires"):
        decode(body)
