"""The wire format, both ways, and what one receipt of a message looks like; runs on any thread."""

import json
import math
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NoReturn

from jobrunner.errors import MalformedMessage

#: SQS's own limit for a body, in bytes of UTF-8 (AWS: SendMessage, since August 2025).
BODY_BYTES_MAX = 1_048_576
#: Deeper JSON is refused on both sides, long before Python's own recursion limit.
DEPTH_MAX = 64

#: AWS: what a schedule's name may be; a job for later has its id for one.
SCHEDULE_NAME = re.compile(r"[0-9A-Za-z_.-]{1,64}")
#: Room for a UUID, a ULID or a schedule's name and its time.
ID_LENGTH_MAX = 200
#: Python reads no longer integer from text, so none is written.
INT_DIGITS_MAX = 4_300
INT_LIMIT = 10**INT_DIGITS_MAX

#: AWS: context attribute of Scheduler, replaced at each fire by its time, such as 2026-11-23T09:00:00Z.
PLACEHOLDER = "<aws.scheduler.scheduled-time>"

#: The members that mean something; others are ignored.
MEMBERS = ("method", "params", "context", "id", "scheduled_at", "max_age_seconds")
KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a body asks for."""

    method: str
    params: dict[str, Any] | list[Any] = field(default_factory=dict)
    context: dict[str, str] = field(default_factory=dict)
    id: str | None = None
    scheduled_at: str | None = None
    max_age_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One receipt of a message; `sent_at` is in epoch seconds, by SQS's clock."""

    message_id: str
    receipt_handle: str
    body: str
    attempt: int
    sent_at: float
    group: str | None = None

    def ids(self) -> dict[str, str | int | None]:
        """Give what a log line names a job by; a malformed body has no method."""
        call = decode_or_none(self.body)
        return {
            "method": call.method if call else None,
            "message_id": self.message_id,
            "job_id": (call and call.id) or self.message_id,
            "attempt": self.attempt,
        }

    def body_of_copy(self) -> str:
        """Write the body so that a copy of the message is the same job; raises MalformedMessage if it is none."""
        call = decode(self.body)
        return encode(replace(call, id=call.id or self.message_id))


def encode(call: Call) -> str:
    """Write a call as a body of pure ASCII; raises MalformedMessage if JSON cannot carry it."""
    document = {name: value for name in MEMBERS if (value := getattr(call, name)) not in (None, {})}
    _check_members(document)
    _check_json(call.params, "params", depth=2)
    body = json.dumps(document, separators=(",", ":"))
    if len(body) > BODY_BYTES_MAX:
        raise MalformedMessage(
            f"the message has {len(body):,} bytes and SQS takes {BODY_BYTES_MAX:,}: "
            "put the data where jobs can fetch it and send its key"
        )
    return body


def decode(body: str | bytes) -> Call:
    """Read a body; raises MalformedMessage, and nothing else, whatever the bytes."""
    document = _parse(_text(body))
    if type(document) is not dict:
        raise MalformedMessage(f"the body is {_kind(document)}, not an object")
    _check_members(document)
    return Call(**{name: document[name] for name in MEMBERS if name in document})


def decode_or_none(body: str) -> Call | None:
    """Read a body; None if it is malformed."""
    try:
        return decode(body)
    except MalformedMessage:
        return None


def is_method_name(name: str) -> bool:
    """Tell whether a name is dotted Python identifiers, none of them private."""
    return all(part.isidentifier() and part[0] != "_" for part in name.split("."))


def _text(body: str | bytes) -> str:
    if len(body) > BODY_BYTES_MAX:
        raise MalformedMessage(f"the body has over {BODY_BYTES_MAX:,} bytes")
    if isinstance(body, str):
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"the body is not UTF-8: {error}") from None


def _parse(text: str) -> Any:
    try:
        document = DECODER.decode(text)
    except MalformedMessage:
        raise
    except RecursionError:
        raise MalformedMessage(f"the body nests deeper than {DEPTH_MAX} levels") from None
    except ValueError as error:  # JSONDecodeError, and what int() says of 4,300 digits
        raise MalformedMessage(f"the body is not JSON: {error}") from None
    # Counting brackets is cheap and settles the matter for nearly every body.
    if text.count("[") + text.count("{") > DEPTH_MAX and _depth(document) > DEPTH_MAX:
        raise MalformedMessage(f"the body nests deeper than {DEPTH_MAX} levels")
    return document


def _depth(document: Any) -> int:
    depth, level = 0, [document]
    while level := [value for value in level if isinstance(value, dict | list)]:
        depth += 1
        level = [child for value in level for child in (value.values() if isinstance(value, dict) else value)]
    return depth


def _check_members(document: dict[str, Any]) -> None:
    method = document.get("method")
    if type(method) is not str:
        raise MalformedMessage(f"method is {_kind(method)}, not a string")
    if not is_method_name(method):
        raise MalformedMessage(f"method {method[:100]!r} is not dotted Python names without a leading underscore")
    if "params" in document and type(document["params"]) not in (dict, list):
        raise MalformedMessage(f"params is {_kind(document['params'])}, not an object or an array")
    if "context" in document:
        _check_context(document["context"])
    if "id" in document and (type(document["id"]) is not str or not 0 < len(document["id"]) <= ID_LENGTH_MAX):
        raise MalformedMessage(f"id is not a string of 1 to {ID_LENGTH_MAX} characters")
    if "scheduled_at" in document:
        _check_time(document["scheduled_at"])
    if "max_age_seconds" in document:
        age = document["max_age_seconds"]
        if type(age) is not int or age < 1:
            raise MalformedMessage("max_age_seconds is not a whole number of at least 1")


def _check_context(context: Any) -> None:
    if type(context) is not dict or not all(type(word) is str for pair in context.items() for word in pair):
        raise MalformedMessage("context is not an object of strings")


def _check_time(value: Any) -> None:
    if value == PLACEHOLDER:
        raise MalformedMessage(
            f"scheduled_at is still {PLACEHOLDER}, which EventBridge Scheduler replaces when it fires: "
            "what sent this does not, or the message was given up before it fired"
        )
    try:
        offset = datetime.fromisoformat(value).utcoffset()
    except (TypeError, ValueError):
        offset = None
    if offset is None:
        raise MalformedMessage("scheduled_at is not an ISO 8601 time with its offset, such as 2026-11-23T09:00:00Z")


def _check_json(value: Any, path: str, depth: int) -> None:
    """Refuse what json.dumps would quietly change (tuples, keys that are not strings) or cannot write."""
    if depth > DEPTH_MAX:
        raise MalformedMessage(f"{path[:100]} nests deeper than {DEPTH_MAX} levels")
    if type(value) is list:
        for index, item in enumerate(value):
            _check_json(item, f"{path}[{index}]", depth + 1)
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise MalformedMessage(f"{path} has the key {key!r}, and JSON's keys are strings: write str(key)")
            _check_json(item, f"{path}.{key}", depth + 1)
    else:
        _check_scalar(value, path)


def _check_scalar(value: Any, path: str) -> None:
    if type(value) is float and not math.isfinite(value):
        raise MalformedMessage(f"{path} is {value}, which JSON cannot carry: send null or a string")
    if type(value) is int and abs(value) >= INT_LIMIT:
        raise MalformedMessage(f"{path} is an integer of over {INT_DIGITS_MAX} digits: send it as a string")
    if value is not None and type(value) not in (str, bool, int, float):
        name = type(value).__name__
        raise MalformedMessage(f"{path} is a {name}, which is not JSON: convert it to a list, a string or a number")


def _kind(value: Any) -> str:
    return "missing or null" if value is None else KINDS.get(type(value), f"a {type(value).__name__}")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise MalformedMessage("an object in the body has the same key twice")
    return document


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise MalformedMessage(f"the body has a number out of range: {text[:50]}")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedMessage(f"the body has {name}, which is not JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_unique_members, parse_float=_finite, parse_constant=_refuse_constant)
