"""The one event loop of the process, on the thread "coroutines": `async def` jobs share it and its clients."""

import asyncio
import os
import threading
import traceback
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import FrameType
from typing import Any

from jobrunner import current


class JobTask(asyncio.Task[Any]):
    """A task that knows whose it is: a job's own, or one that the job has made."""

    def __init__(self, *words: Any, **named: Any) -> None:
        job = current.running.get()
        self.message_id = job.message_id if job else None
        super().__init__(*words, **named)


class Coroutines:
    """Awaits for the threads that call jobs, which wait here as they would for a plain job."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._awaited: dict[int, Awaitable[Any]] = {}
        self._thread_id = 0
        self._beat = threading.Event()
        self._beat.set()
        self._loop.set_task_factory(lambda loop, coro, **named: JobTask(coro, loop=loop, **named))
        os.register_at_fork(after_in_child=self._end_forked_loop)

    def loop(self) -> None:
        """Run the event loop, for ever: a job that stops it, or exits in a task of its own, does not stop the others.

        What a task raises is kept in it, for whoever awaits it.
        """
        asyncio.set_event_loop(self._loop)
        self._thread_id = threading.get_ident()
        while True:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue

    def result_of(self, awaitable: Awaitable[Any]) -> Any:
        """Await on the loop for a worker thread; raises what the awaitable raised."""
        thread_id = threading.get_ident()
        if thread_id == self._thread_id:  # inline: an async job that enqueues another, and waits for it here
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(copy_context().run, asyncio.run, awaited(awaitable)).result()
        self._awaited[thread_id] = awaitable
        try:
            result, error = asyncio.run_coroutine_threadsafe(_caught(awaitable), self._loop).result()
        finally:
            del self._awaited[thread_id]
        if error is not None:
            raise error
        return result

    def awaits(self, thread_id: int) -> bool:
        """Tell whether a worker thread waits for the loop."""
        return thread_id in self._awaited

    def holder(self) -> str | None:
        """Name the message whose job has held the loop since this was last asked; asked at each tick."""
        is_held = not self._beat.is_set()
        if not is_held:
            self._beat.clear()
            self._loop.call_soon_threadsafe(self._beat.set)
        task = asyncio.current_task(self._loop) if is_held else None
        return task.message_id if isinstance(task, JobTask) else None

    def stack_for(self, thread_id: int) -> str | None:
        """Show where the awaitable of a worker thread stands; None if the thread awaits nothing."""
        awaitable: Any = self._awaited.get(thread_id)
        if awaitable is None:
            return None
        lines: list[str] = []
        # A suspended coroutine knows only its own frame: the rest hangs on what it awaits.
        while isinstance(frame := getattr(awaitable, "cr_frame", None), FrameType):
            lines += traceback.format_stack(frame, limit=1)
            awaitable = awaitable.cr_await
        return "".join(lines)

    def _end_forked_loop(self) -> None:
        """In the child of a job that forked on the loop: end it where the loop would go on, with other jobs' tasks."""
        if threading.get_ident() == self._thread_id:
            self._loop._ready.clear()  # type: ignore[attr-defined]
            self._loop.call_soon(os._exit, 0)


async def awaited(awaitable: Awaitable[Any]) -> Any:
    """Give what an awaitable gives: a coroutine of it, where one is asked for."""
    return await awaitable


async def _caught(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    # Caught inside the task: a SystemExit that left it would end the loop under all other jobs.
    try:
        return await awaitable, None
    except BaseException as error:
        return None, error
