"""Fires the one-time schedules that an emulator keeps and never fires; a thread of `jobrunner dev`."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from jobrunner.errors import QueueError
from jobrunner.queue.schedules import Scheduled, Schedules
from jobrunner.sending.producer import send_body

LOOK_SECONDS = 1.0


class Ticker:
    """Looks at all schedules of a place, again and again, and sends what is due to its queue."""

    def __init__(self, *, schedules: Schedules, queue_urls: Sequence[str]) -> None:
        self._schedules = schedules
        self._queue_urls = {url.rpartition("/")[2]: url for url in queue_urls}
        self._known: dict[str, Scheduled | None] = {}

    def start(self) -> None:
        """Look from now on, until the process ends."""
        threading.Thread(target=self._loop, name="ticker", daemon=True).start()

    def _loop(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                self.tick()
            except QueueError as error:
                click.echo(f"jobs for later: {error}", err=True)

    def tick(self) -> None:
        """Send what is due, then take it away."""
        for job_id in list(self._schedules.ids()):
            if job_id not in self._known:
                self._known[job_id] = self._schedules.get(job_id)
            found = self._known[job_id]
            if found and found.at <= datetime.now(UTC):
                send_body(found.body, queue_url=self._queue_urls[found.queue], group=found.group)
                self._schedules.delete(job_id)
                del self._known[job_id]
