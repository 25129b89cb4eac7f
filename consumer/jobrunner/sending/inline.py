"""`inline:` instead of a queue: the job runs at once, on the caller's thread; for the app's own tests."""

import asyncio
import contextvars
import inspect
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from jobrunner import current
from jobrunner.app import catalog
from jobrunner.message import Delivery, decode

URL = "inline:"


def run(body: str) -> None:
    """Decode, find, bind and call as a worker would; what the job raises, the caller gets."""
    call = decode(body)
    job = _catalog(os.environ.get("JOBRUNNER_MODULE", "jobs")).find(call.method)
    arguments = job.bind(call.params)
    delivery = Delivery(message_id=str(uuid.uuid4()), receipt_handle="", body=body, attempt=1, sent_at=time.time())
    token = current.running.set(current.CurrentJob.of(call, delivery))
    try:
        result = job.function(*arguments.args, **arguments.kwargs)
        if inspect.iscoroutine(result):
            # The caller may be inside a running event loop, and a thread has only one.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(contextvars.copy_context().run, asyncio.run, result).result()
    finally:
        current.running.reset(token)


@lru_cache(maxsize=4)
def _catalog(module: str) -> catalog.Catalog:
    return catalog.load(module)
