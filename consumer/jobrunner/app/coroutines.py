"""The one event loop of the process, on the thread "coroutines": `async def` jobs share it and its clients."""

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from types import FrameType
from typing import Any

from jobrunner import current
from jobrunner.app.opening import OURS


class JobTask(asyncio.Task[Any]):
    """A task that knows whose it is: a job's own, or one that the job has made."""

    def __init__(self, *words: Any, **named: Any) -> None:
        context: Context = named.get("context") or copy_context()
        job = context.get(current.running)
        self.message_id = job.message_id if job else None
        super().__init__(*words, **named)


class Coroutines:
    """Runs what `async def` jobs are: by tasks that hold no thread, or for a thread that waits for the result."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._awaited: dict[int, Awaitable[Any]] = {}
        self.thread_id = 0
        self._beat = threading.Event()
        self._beat.set()
        self._asked_at = 0.0
        self._loop.set_task_factory(lambda loop, coro, **named: JobTask(coro, loop=loop, **named))
        os.register_at_fork(after_in_child=self._end_forked_loop)

    def loop(self) -> None:
        """Run the event loop, for ever: a job that stops it, or exits in a task of its own, does not stop the others.

        What a task raises is kept in it, for whoever awaits it.
        """
        asyncio.set_event_loop(self._loop)
        self.thread_id = threading.get_ident()
        while True:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue

    def call_soon(self, function: Callable[..., object], *words: Any) -> None:
        """Have the loop call a function; from any thread, never waits."""
        self._loop.call_soon_threadsafe(function, *words)

    def result_of(self, awaitable: Awaitable[Any]) -> Any:
        """Await on the loop for a thread that waits; raises what the awaitable raised."""
        thread_id = threading.get_ident()
        if thread_id == self.thread_id:  # inline: an async job that enqueues another, and waits for it here
            with ThreadPoolExecutor(1) as thread:
                result, error = thread.submit(copy_context().run, asyncio.run, _caught(awaitable)).result()
        else:
            self._awaited[thread_id] = awaitable
            try:
                result, error = result_on(self._loop, awaitable)
            finally:
                del self._awaited[thread_id]
        if error is not None:
            raise error
        return result

    def awaits(self, thread_id: int) -> bool:
        """Tell whether a thread waits for the loop."""
        return thread_id in self._awaited

    def held_seconds(self) -> float:
        """Say for how long the loop has not answered; 0 if it has since this was last asked. Asked at each tick."""
        if self._beat.is_set():
            self._beat.clear()
            self._asked_at = time.monotonic()
            self._loop.call_soon_threadsafe(self._beat.set)
            return 0.0
        return time.monotonic() - self._asked_at

    def holder(self) -> str | None:
        """Name the message whose job the loop runs just now."""
        task = asyncio.current_task(self._loop)
        return task.message_id if isinstance(task, JobTask) else None

    def stack_of(self, thread_id: int) -> str:
        """Show where a thread stands, or what it awaits."""
        return stack_of_coroutine(self._awaited.get(thread_id)) or stack_of_thread(thread_id)

    def _end_forked_loop(self) -> None:
        """In the child of a job that forked on the loop: end it where the loop would go on, with other jobs' tasks."""
        if threading.get_ident() == self.thread_id:
            self._loop._ready.clear()  # type: ignore[attr-defined]
            self._loop.call_soon(os._exit, 0)


def stack_of_coroutine(awaitable: Any) -> str:
    """Show where a coroutine stands, without our own frames."""
    lines: list[str] = []
    # A suspended coroutine knows only its own frame: the rest hangs on what it awaits.
    while isinstance(frame := getattr(awaitable, "cr_frame", None), FrameType):
        if not frame.f_code.co_filename.startswith(f"{OURS}{os.sep}"):
            lines += traceback.format_stack(frame, limit=1)
        awaitable = awaitable.cr_await
    return "".join(lines)


def stack_of_thread(thread_id: int) -> str:
    """Show where a thread stands."""
    frame = sys._current_frames().get(thread_id)
    return "".join(traceback.format_stack(frame)) if frame else "the thread has ended"


def result_on(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Await on a loop of another thread; gives the result, or what was raised."""
    return asyncio.run_coroutine_threadsafe(_caught(awaitable), loop).result()


async def _caught(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    # Caught inside the task: a SystemExit that left it would end the loop under all other jobs.
    try:
        return await awaitable, None
    except BaseException as error:
        return None, error
