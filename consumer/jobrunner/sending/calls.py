"""A call written as a call, so that type checkers see the function and its params; any thread."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

from jobrunner.app.catalog import LAZILY, Params, is_django_task, misfit
from jobrunner.errors import BadParams, SettingsError

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A function and its params, not called yet: what `enqueue` and `enqueue_many` take in place of both."""

    function: Callable[..., Any]
    params: dict[str, Any]


def call(function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> PreparedCall:
    """Prepare a call for `enqueue`: `enqueue(call(orders.ship, number=7))`; raises BadParams if the params do not fit.

    Params go by name, so that a job may change their order.
    """
    if isinstance(function, str):
        raise SettingsError(f"call() takes the function itself; with its name write enqueue({function!r}, {{...}})")
    check_callable(function)
    name, signature = getattr(function, "__qualname__", repr(function)), inspect.signature(function, **LAZILY)
    bound = _bound(name, signature, args, kwargs)
    return PreparedCall(function, _by_name(name, bound))


def params_of(name: str, signature: inspect.Signature, args: list[Any], kwargs: dict[str, Any]) -> Params:
    """Give a call's params by name where that can be, else by position; raises BadParams if they do not fit."""
    bound = _bound(name, signature, args, kwargs)
    try:
        return _by_name(name, bound)
    except BadParams:
        if bound.kwargs:
            raise
        return list(bound.args)


def _by_name(name: str, bound: inspect.BoundArguments) -> dict[str, Any]:
    params = dict(bound.arguments)
    for key, parameter in bound.signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY) and key in params:
            raise BadParams(f"{name}{bound.signature}: {key} goes by position, and this is sent by name")
        if parameter.kind is parameter.VAR_KEYWORD:
            params |= params.pop(key, {})
    return params


def _bound(
    name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        raise misfit(name, signature, error, kwargs) from None


def check_callable(function: Any) -> None:
    """Raise SettingsError for what is no function: what a call gave, most likely."""
    if is_django_task(function):
        raise SettingsError(f"{function.module_path} is one of Django's tasks: call its own enqueue(...)")
    if not callable(function):
        called = "you called it: pass the function itself, and its params beside it"
        raise SettingsError(f"method is {function!r:.100}, neither a name nor a function. Maybe {called}")
