"""A call written as a call, so that type checkers see the function and its params; any thread."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

from jobrunner.errors import BadParams

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
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise BadParams(f"{getattr(function, '__qualname__', function)}{signature}: {error}") from None
    params = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY) and name in params:
            raise BadParams(f"{function.__qualname__}{signature}: {name} goes by position, and call() sends by name")
        if parameter.kind is parameter.VAR_KEYWORD:
            params |= params.pop(name, {})
    return PreparedCall(function, params)
