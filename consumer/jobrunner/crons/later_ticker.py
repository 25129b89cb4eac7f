"""Fires the one-time schedules that an emulator keeps and never fires; a thread of `dev` and of `crons run`."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from jobrunner.errors import QueueError
from jobrunner.queue.schedules import Scheduled, Schedules
from jobrunner.sending.producer import send_body

LOOK_SECONDS = 1.0
#: A schedule by its name and when it was made: a name may be taken away and given anew.
Key = tuple[str, datetime]


class LaterTicker:
    """Looks at all schedules of a place, again and again, and sends what is due to its queue."""

    def __init__(self, *, schedules: Schedules, queue_urls: Sequence[str]) -> None:
        self._schedules = schedules
        self._queue_urls = {url.rpartition("/")[2]: url for url in queue_urls}
        self._known: dict[Key, Scheduled | None] = {}
        self._stopped = threading.Event()

    def start(self) -> None:
        """Look from now on, until the process ends or this is stopped."""
        threading.Thread(target=self._loop, name="later-ticker", daemon=True).start()

    def stop(self) -> None:
        """Look no more, before the emulator ends: that it does not answer then is no news."""
        self._stopped.set()

    def _loop(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self.tick()
            except QueueError as error:
                if not self._stopped.is_set():
                    click.echo(f"jobs for later: {error}", err=True)

    def tick(self) -> None:
        """Send what is due, then take it away."""
        listed = list(self._schedules.listed())
        self._known = {key: self._known[key] if key in self._known else self._of_ours(key[0]) for key in listed}
        for found in self._known.values():
            if found and found.at <= datetime.now(UTC):
                send_body(found.body, queue_url=self._queue_urls[found.queue], group=found.group)
                self._schedules.delete(found.id)

    def _of_ours(self, job_id: str) -> Scheduled | None:
        found = self._schedules.get(job_id)
        if found and found.queue not in self._queue_urls:
            click.echo(f"jobs for later: {job_id} is for the queue {found.queue!r}, which is not here", err=True)
            return None
        return found
