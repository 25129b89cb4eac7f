"""What is entered around each job: loaded in the main thread, entered on the job's thread or event loop."""

import inspect
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, suppress
from typing import Any

from jobrunner.app.opening import import_module
from jobrunner.errors import AppError, AroundBroken, NoSuchModule
from jobrunner.settings import check_around


class Around:
    """Makes a context manager for each job, of what `--around` names."""

    def __init__(self, make: Callable[[], Any], *, name: str) -> None:
        self._make = make
        self._name = name

    def on_thread(self) -> AbstractContextManager[Any]:
        """Make one for a plain job; raises AroundBroken for what is none."""
        manager = self._make()
        if hasattr(type(manager), "__enter__"):
            return manager  # type: ignore[no-any-return]
        raise self._broken(manager)

    def on_loop(self) -> AbstractAsyncContextManager[Any]:
        """Make one for an `async def` job: what it does on the event loop holds up all others there."""
        manager = self._make()
        if hasattr(type(manager), "__aenter__"):
            return manager  # type: ignore[no-any-return]
        if hasattr(type(manager), "__enter__"):
            return _entered(manager)
        raise self._broken(manager)

    def _broken(self, manager: object) -> AroundBroken:
        gave = f"--around {self._name!r} gave {manager!r:.100}, which"
        if hasattr(type(manager), "__aenter__"):
            return AroundBroken(
                f"{gave} `async def` jobs can enter and plain ones cannot, so the job did not run: "
                "give it __enter__ and __exit__ as well"
            )
        return AroundBroken(
            f"{gave} is no context manager, so the job did not run: "
            "decorate a generator with contextlib.contextmanager, or return an object with __enter__ and __exit__"
        )


@asynccontextmanager
async def _entered(manager: AbstractContextManager[Any]) -> AsyncIterator[Any]:
    with manager as value:
        yield value


def named(reference: str) -> Around:
    """Import `module:callable`, which makes the context managers of `--around`; raises AppError or SettingsError."""
    check_around(reference)
    module_name, _, path = reference.partition(":")
    try:
        value: Any = import_module(module_name)
    except NoSuchModule:
        raise AppError(f"--around {reference!r}: no module {module_name!r} in {sys.path[0] or '.'}") from None
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except (AttributeError, RuntimeError) as error:  # Flask's proxies outside their context
            raise AppError(f"--around {reference!r}: {error}") from None
    if reason := _reason_not_to_enter(value):
        raise AppError(f"--around {reference!r}: {reason}")
    return Around(value, name=reference)


def _reason_not_to_enter(value: Any) -> str | None:
    # Only what can be told without calling it: it may ask for the current job, and there is none yet.
    if not callable(value):
        return "it is not callable"
    if inspect.iscoroutinefunction(value):
        return "it is async: make it a plain function that returns a context manager"
    if inspect.isasyncgenfunction(value):
        return "it is an async generator: decorate it with contextlib.asynccontextmanager"
    if inspect.isgeneratorfunction(value):
        return "it is a generator: decorate it with contextlib.contextmanager"
    with suppress(ValueError):  # what is written in C need not tell
        try:
            inspect.signature(value, follow_wrapped=False).bind()
        except TypeError as error:
            return f"it is called without arguments ({error}); in a Flask app it is web.app:app.app_context"
    return None
