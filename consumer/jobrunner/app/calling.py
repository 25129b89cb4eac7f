"""Calls a job's function and sees it to its end, in a worker or inline; on the caller's thread, or on the loop."""

import inspect
import os
from collections.abc import Awaitable
from contextlib import nullcontext
from typing import Any, Protocol

from jobrunner.app.around import Around
from jobrunner.app.catalog import Job

#: It keeps nothing, so that all jobs may enter the same one.
NOTHING_AROUND = nullcontext()


class Awaits(Protocol):
    """Awaits what a job returned: on a loop of ours, or under `inline:` on the caller's."""

    def result_of(self, awaitable: Awaitable[Any]) -> Any:
        """Give its result; raises what it raises."""


class JobDidNotReturn(RuntimeError):
    """The function ended without running to its end, though no exception reached us."""


class Caller:
    """Enters what is around a job, calls it, awaits what it returns.

    None comes back only if the function ran to its end, whatever `--around` makes of errors.
    """

    def __init__(self, *, around: Around | None, coroutines: Awaits) -> None:
        self._around = around
        self._coroutines = coroutines

    def call(self, job: Job, arguments: inspect.BoundArguments) -> BaseException | None:
        """Call the function on this thread; an `async def` one on the loop, while this thread waits for it."""
        if job.is_async:
            error: BaseException | None = self._coroutines.result_of(self.call_on_loop(job, arguments))
            return error
        returned = False
        pid = os.getpid()
        try:
            with self._around.on_thread() if self._around else NOTHING_AROUND:
                self._finish(job.function(*arguments.args, **arguments.kwargs))
                returned = True
        except BaseException as error:
            return _ended(pid, error, returned=returned)
        return _ended(pid, None, returned=returned)

    async def call_on_loop(self, job: Job, arguments: inspect.BoundArguments) -> BaseException | None:
        """Call the function on the event loop, and hold no thread."""
        returned = False
        pid = os.getpid()
        try:
            async with self._around.on_loop() if self._around else NOTHING_AROUND:
                check_returned(await to_its_end(job.function(*arguments.args, **arguments.kwargs)))
                returned = True
        except BaseException as error:
            return _ended(pid, error, returned=returned)
        return _ended(pid, None, returned=returned)

    def _finish(self, result: object) -> None:
        if result is None:
            return
        while inspect.isawaitable(result):  # of a decorator that is no `async def`
            result = self._coroutines.result_of(result)
        check_returned(result)


async def to_its_end(result: object) -> object:
    """Await what a function returned, and what that returns."""
    while inspect.isawaitable(result):  # what an `async def` returns may be one again
        result = await result
    return result


def check_returned(result: object) -> None:
    """Raise JobDidNotReturn for what a function gives that has not run."""
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise JobDidNotReturn("the job returned a generator: nothing of its body ran; return a list instead")


def _ended(pid: int, error: BaseException | None, *, returned: bool) -> BaseException | None:
    # A job that forked comes back here twice. Only the parent may answer for the message, and it may
    # ask how its child ended.
    if os.getpid() != pid:
        code = error.code if isinstance(error, SystemExit) else 1
        os._exit(0 if error is None or code is None else code if isinstance(code, int) else 1)
    return JobDidNotReturn("--around swallowed the job's exception") if error is None and not returned else error
