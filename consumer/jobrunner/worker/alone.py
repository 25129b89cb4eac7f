"""The last attempt of a message runs in a process of its own: the waiting worker thread here, all else there.

A job that kills its process takes the jobs beside it down, they come back together, and together they
would end in the dead letters. So on its last attempt every delivery is alone: the culprit dies alone,
the innocent come through. It needs no memory of crashes, and so works across machines.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import ExitCode
from jobrunner.message import Delivery
from jobrunner.outcome import Outcome, failed
from jobrunner.settings import Settings

#: Beyond the job's own limit, for starting and stopping.
SPARE_SECONDS = 60
#: -P: the working directory may hold files of our names.
CHILD = (sys.executable, "-P", "-c", "from jobrunner.cli.worker import consume_one; consume_one()")


class Alone:
    """Starts a worker for one delivery and waits for it."""

    def __init__(self, *, settings: Settings, log: FilteringBoundLogger) -> None:
        self._settings = settings
        self._log = log
        self._children: set[subprocess.Popen[bytes]] = set()

    def run(self, delivery: Delivery) -> Outcome | None:
        """Run a delivery in a child; None if the child settled it, a failure if it died."""
        child = subprocess.Popen(CHILD, stdin=subprocess.PIPE, cwd=self._settings.app_dir)
        self._children.add(child)
        limit = self._settings.job_timeout_seconds
        try:
            child.communicate(_pack(self._settings, delivery), timeout=limit + SPARE_SECONDS if limit else None)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._children.discard(child)
        if child.returncode == ExitCode.SETTLED:
            return None
        outcome = failed("died", delivery.attempt)
        self._log.error(
            "job.failed",
            message_id=delivery.message_id,
            attempt=delivery.attempt,
            retry_seconds=outcome.release_seconds,
            error=f"its own process ended with {_name(child.returncode)}: on its last attempt a job runs alone",
        )
        return outcome

    def stop(self) -> None:
        """Tell the children to stop as this process was told."""
        for child in list(self._children):
            child.terminate()


class OneDelivery:
    """Stands in for the queue in the child: has this delivery to give, then nothing."""

    def __init__(self, delivery: Delivery) -> None:
        self._deliveries = [delivery]

    def receive(self, **_: object) -> list[Delivery]:
        """Give what there is."""
        given, self._deliveries = self._deliveries, []
        return given


def unpack(data: bytes) -> tuple[Settings, Delivery]:
    """Read, in the child, what to run and how."""
    given: Mapping[str, Any] = json.loads(data)
    settings = Settings(**{**given["settings"], "app_dir": Path(given["settings"]["app_dir"])})
    return settings, Delivery(**given["delivery"])


def _pack(settings: Settings, delivery: Delivery) -> bytes:
    own = replace(settings, threads=1, stop_when_empty=True, status_file=None, app_dir=settings.app_dir.resolve())
    return json.dumps({"settings": asdict(own), "delivery": asdict(delivery)}, default=str).encode()


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
