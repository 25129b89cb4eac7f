"""`enqueue` for async web code: on threads of our own, so that the event loop never waits for SQS."""

import asyncio
import contextvars
import os
import time
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

from jobrunner.errors import QueueError, RequestRefused
from jobrunner.sending import budget, inline, producer

Params = ParamSpec("Params")
Result = TypeVar("Result")
#: Of a process: what waits for a thread waits without one.
THREADS = 8


class _Senders:
    """The threads of one process, and when one of them was last done."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aenqueue")
        self._done_at = time.monotonic()

    async def run(self, send: Callable[[], Result]) -> Result:
        """Send on one of them, in the caller's context; raises RequestRefused where none came to it in time."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(inline.callers_loop.set, loop)
        return await loop.run_in_executor(self._threads, context.run, self._in_time, time.monotonic(), send)

    def _in_time(self, asked_at: float, send: Callable[[], Result]) -> Result:
        now = time.monotonic()
        if now - max(asked_at, self._done_at) > budget.told():  # a long line that moves is no reason
            waited = f"since {now - asked_at:.0f} s"
            raise RequestRefused(f"not sent: {THREADS} threads are busy with an SQS that is slow, {waited}")
        result = send()
        self._done_at = time.monotonic()
        return result


def _awaited(
    send: Callable[Params, Result], *, makes_id: bool = False
) -> Callable[Params, Coroutine[Any, Any, Result]]:
    """Give the same function to await. Cancelled, the call may have been sent: what a thread has begun goes on.

    What waits for a thread for as long as its tries may take, while none gets on, is not sent: RequestRefused.
    """

    @wraps(send)
    async def awaited(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        if makes_id and kwargs.get("id") is None:
            kwargs["id"] = str(uuid.uuid4())  # here, so that every error has it
        try:
            return await _senders(os.getpid()).run(partial(send, *args, **kwargs))
        except QueueError as error:
            error.job_id = error.job_id or (str(kwargs["id"]) if makes_id else None)
            raise

    return awaited


aenqueue = _awaited(producer.enqueue, makes_id=True)
aenqueue_many = _awaited(producer.enqueue_many)


@lru_cache(maxsize=1)
def _senders(_pid: int) -> _Senders:
    # Keyed by process: a forked one has none of its parent's threads.
    return _Senders()
