"""`inline:` instead of a queue: the job runs at once, on the caller's thread; for the app's own tests."""

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable
from contextvars import ContextVar
from functools import lru_cache
from threading import Thread
from typing import Any

from jobrunner import current
from jobrunner.app import catalog
from jobrunner.app.around import Around
from jobrunner.app.calling import Awaits, Caller
from jobrunner.app.coroutines import Coroutines, result_on
from jobrunner.message import Delivery, decode

URL = "inline:"
#: The event loop that awaits `aenqueue`, whose clients the job may share.
callers_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("callers_loop", default=None)


class CallersLoop:
    """Awaits what a job returned on the loop of the code that enqueued it; from another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def result_of(self, awaitable: Awaitable[Any]) -> Any:
        """Give its result; raises what it raises."""
        result, error = result_on(self._loop, awaitable)
        if error is not None:
            raise error
        return result


def run(body: str, *, around: Around | None = None) -> None:
    """Decode, find, bind and call as a worker would; what the job raises, the caller gets."""
    call = decode(body)
    job = _catalog(os.environ.get("JOBRUNNER_MODULE", "jobs")).find(call.method)
    arguments = job.bind(call.params)
    delivery = Delivery(message_id=str(uuid.uuid4()), receipt_handle="", body=body, attempt=1, sent_at=time.time())
    token = current.running.set(current.CurrentJob.of(call, delivery))
    try:
        error = Caller(around=around, coroutines=_awaits()).call(job, arguments)
    finally:
        current.running.reset(token)
    if error is not None:
        raise error


@lru_cache(maxsize=4)
def _catalog(module: str) -> catalog.Catalog:
    return catalog.load(module)


def _awaits() -> Awaits:
    """Choose the loop: the caller's, if it waits for us on another thread, or one of our own."""
    loop = callers_loop.get()
    if loop is None or loop is asyncio._get_running_loop():  # noqa: SLF001 - documented: never raises
        return _coroutines(os.getpid())
    return CallersLoop(loop)


@lru_cache(maxsize=1)
def _coroutines(_pid: int) -> Coroutines:
    """Give the loop that all `async def` jobs of this process share, as in a worker: their clients live on it."""
    coroutines = Coroutines()
    Thread(target=coroutines.loop, name="jobrunner-inline", daemon=True).start()
    return coroutines
