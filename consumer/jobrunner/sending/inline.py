"""`inline:` instead of a queue: the job runs at once, on the caller's thread; for the app's own tests."""

import os
import time
import uuid
from functools import lru_cache
from threading import Thread

from jobrunner import current
from jobrunner.app import catalog
from jobrunner.app.around import Around
from jobrunner.app.calling import Caller
from jobrunner.app.coroutines import Coroutines
from jobrunner.message import Delivery, decode

URL = "inline:"


def run(body: str, *, around: Around | None = None) -> None:
    """Decode, find, bind and call as a worker would; what the job raises, the caller gets."""
    call = decode(body)
    job = _catalog(os.environ.get("JOBRUNNER_MODULE", "jobs")).find(call.method)
    arguments = job.bind(call.params)
    delivery = Delivery(message_id=str(uuid.uuid4()), receipt_handle="", body=body, attempt=1, sent_at=time.time())
    token = current.running.set(current.CurrentJob.of(call, delivery))
    try:
        error = Caller(around=around, coroutines=_coroutines(os.getpid())).call(job, arguments)
    finally:
        current.running.reset(token)
    if error is not None:
        raise error


@lru_cache(maxsize=4)
def _catalog(module: str) -> catalog.Catalog:
    return catalog.load(module)


@lru_cache(maxsize=1)
def _coroutines(_pid: int) -> Coroutines:
    """Give the loop that all `async def` jobs of this process share, as in a worker: their clients live on it."""
    coroutines = Coroutines()
    Thread(target=coroutines.loop, name="jobrunner-inline", daemon=True).start()
    return coroutines
