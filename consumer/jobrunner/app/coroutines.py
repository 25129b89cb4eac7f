"""The one event loop of the process, on the thread "coroutines": `async def` jobs share it and its clients."""

import asyncio
import threading
import traceback
from collections.abc import Awaitable
from types import FrameType
from typing import Any


class Coroutines:
    """Awaits for worker threads, which wait here as they would for a plain job."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._awaited: dict[int, Awaitable[Any]] = {}

    def loop(self) -> None:
        """Run the event loop; it ends only with the process."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def result_of(self, awaitable: Awaitable[Any]) -> Any:
        """Await on the loop for a worker thread; raises what the awaitable raised."""
        thread_id = threading.get_ident()
        self._awaited[thread_id] = awaitable
        result, error = asyncio.run_coroutine_threadsafe(_caught(awaitable), self._loop).result()
        del self._awaited[thread_id]
        if error is not None:
            raise error
        return result

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


async def _caught(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    # Caught inside the task: a SystemExit that left it would end the loop under all other jobs.
    try:
        return await awaitable, None
    except BaseException as error:
        return None, error
