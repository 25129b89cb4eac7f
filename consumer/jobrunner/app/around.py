"""What is entered around each job, loaded and looked at once in the main thread."""

import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from jobrunner.app.opening import import_module
from jobrunner.errors import AppError, AroundBroken, NoSuchModule
from jobrunner.settings import check_around

Around = Callable[[], AbstractContextManager[Any]]


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

    def around() -> AbstractContextManager[Any]:
        manager = value()
        if not hasattr(type(manager), "__enter__"):
            raise AroundBroken(
                f"--around {reference!r} gave {manager!r:.100}, which is no context manager, so the job did not run: "
                "decorate a generator with contextlib.contextmanager, or return an object with __enter__ and __exit__"
            )
        return manager  # type: ignore[no-any-return]

    return around


def _reason_not_to_enter(value: Any) -> str | None:
    # Only what can be told without calling it: it may ask for the current job, and there is none yet.
    if not callable(value):
        return "it is not callable"
    if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
        return "it is async, and is entered on the job's thread: make it a plain context manager"
    if inspect.isgeneratorfunction(value):
        return "it is a generator: decorate it with contextlib.contextmanager"
    with suppress(ValueError):  # what is written in C need not tell
        try:
            inspect.signature(value, follow_wrapped=False).bind()
        except TypeError as error:
            return f"it is called without arguments ({error}); in a Flask app it is web.app:app.app_context"
    return None
