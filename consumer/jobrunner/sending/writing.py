"""Writes a call down as a message will have it, its params bound where the function is at hand; any thread."""

import os
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from jobrunner.app import catalog
from jobrunner.errors import MalformedMessage, SettingsError, UnknownMethod
from jobrunner.message import ID_LENGTH_MAX, Call
from jobrunner.sending.calls import PreparedCall, check_callable

Method = str | Callable[..., Any] | PreparedCall
Params = dict[str, Any] | list[Any]

PAIR = 2
#: What is written as a text in a job's context.
TEXTS = (str, int, float, Decimal, uuid.UUID, date, time, timedelta, type(None))


def pair(index: int, call: Any) -> tuple[Method, Params | None]:
    """Give method and params of one of many calls; raises SettingsError."""
    if isinstance(call, PreparedCall):
        return call, None
    if isinstance(call, tuple | list) and len(call) == PAIR:
        return call[0], call[1]
    raise SettingsError(f"calls[{index}] is {call!r:.100}, not a pair of method and params")


def call_of(
    method: Method,
    params: Params | None,
    context: Mapping[str, object] | None = None,
    *,
    job_id: str | None = None,
    at: datetime | None = None,
) -> Call:
    """Write a call down as a message will have it, its params bound where the function is here."""
    if isinstance(method, PreparedCall):
        if params is not None:
            raise SettingsError(f"params are given twice: in call(...) and as {params!r:.100}")
        return call_of(method.function, method.params, context, job_id=job_id, at=at)
    arguments = {} if params is None else params
    if not isinstance(arguments, dict | list):
        raise MalformedMessage(f"params is {arguments!r:.100}: give a dict of params by name, or a list")
    if not isinstance(method, str):
        method = _name_of(method, arguments)
    return Call(
        method=method,
        params=arguments,
        context=_context(context or {}),
        id=_id(job_id),
        scheduled_at=at.astimezone(UTC).isoformat() if isinstance(at, datetime) else None,
    )


def _id(given: object) -> str:
    if given is None or isinstance(given, uuid.UUID):
        return str(given or uuid.uuid4())
    if isinstance(given, str) and 0 < len(given) <= ID_LENGTH_MAX:
        return given
    raise MalformedMessage(f"id is {given!r:.100}: give a text of 1 to {ID_LENGTH_MAX} characters, or leave it out")


def _context(given: Any) -> dict[str, str]:
    """Give a context of texts: what logging contexts hold as a matter of course is written as one."""
    if not isinstance(given, Mapping):
        raise MalformedMessage(f"context is {given!r:.100}: give a dict of texts")
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, TEXTS):
            raise MalformedMessage(f"context[{key!r}] is {value!r:.100}: context holds texts, so make it str(...)")
    return {key: str(value) for key, value in given.items()}


def _name_of(function: Callable[..., Any], params: Params) -> str:
    """Derive a function's method name, and bind the params to it while the caller can still mend them."""
    check_callable(function)
    module = os.environ.get("JOBRUNNER_MODULE", "jobs")
    home = getattr(function, "__module__", None) or ""
    name = _name_in(home, function)
    if home != module and not home.startswith(f"{module}."):
        raise UnknownMethod(
            f"{home}.{name} is outside the jobs module {module!r}, so no worker will find it: "
            "move it there, or set JOBRUNNER_MODULE"
        )
    if home in sys.modules and (reason := catalog.reason_to_leave_out(function, sys.modules[home])):
        raise UnknownMethod(f"{home}.{name} is no job: {reason}")
    method = f"{home}.{name}"[len(module) + 1 :]
    catalog.Job.of(method, function).bind(params)
    return method


def _name_in(home: str, function: Callable[..., Any]) -> str:
    """Give the name under which its module has it, as a worker's catalog does: a lambda has no other."""
    members = vars(sys.modules[home]) if home in sys.modules else {}
    own = getattr(function, "__qualname__", "")
    if members.get(own) is function:
        return own
    return next((name for name, value in members.items() if value is function and name[0] != "_"), own)
