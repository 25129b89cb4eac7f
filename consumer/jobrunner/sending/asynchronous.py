"""`enqueue` for async web code: on threads of our own, so that the event loop never waits for SQS."""

import asyncio
import contextvars
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

from jobrunner.errors import RequestRefused
from jobrunner.sending import delivery, producer

Params = ParamSpec("Params")
Result = TypeVar("Result")
#: Of a process: what waits for a thread waits without one.
THREADS = 8


def _awaited(send: Callable[Params, Result]) -> Callable[Params, Coroutine[Any, Any, Result]]:
    """Give the same function to await. Cancelled, the call may have been sent: what a thread has begun goes on.

    What has waited for a thread for as long as its tries may take is not sent: RequestRefused.
    """

    @wraps(send)
    async def awaited(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        context = contextvars.copy_context()
        sending = partial(context.run, _in_time, time.monotonic(), partial(send, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), sending)

    return awaited


aenqueue = _awaited(producer.enqueue)
aenqueue_many = _awaited(producer.enqueue_many)


def _in_time(asked_at: float, send: Callable[[], Result]) -> Result:
    waited = time.monotonic() - asked_at
    if waited > delivery.budget_seconds():
        raise RequestRefused(f"not sent: {THREADS} threads are busy with an SQS that is slow, since {waited:.0f} s")
    return send()


@lru_cache(maxsize=1)
def _threads(_pid: int) -> ThreadPoolExecutor:
    # Keyed by process: a forked one has none of its parent's threads.
    return ThreadPoolExecutor(THREADS, thread_name_prefix="aenqueue")
