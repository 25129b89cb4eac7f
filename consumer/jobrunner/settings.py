"""What `consume` was told, checked at birth; frozen, so any thread may read it."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from jobrunner.errors import SettingsError

#: AWS: a message may be hidden for 12 hours at most, and a receive may wait 20 s at most.
VISIBILITY_SECONDS_MAX = 43_200
WAIT_SECONDS_MAX = 20
#: Where jobs are unless somebody says otherwise.
MODULE = "jobs"
#: Below this there is no room for renewals and the dead-man's switch before a lease ends.
VISIBILITY_SECONDS_MIN = 10
#: Of the visibility timeout: a job may hold the interpreter for so long. The heartbeat arms the switch anew
#: twice a second, when no lease is older than a third and a tick: so the process is gone before the first ends.
HELD_SHARE_MAX = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of `jobrunner consume`; raises SettingsError naming the value and the cure."""

    queue_url: str
    module: str = MODULE
    app_dir: Path = field(default_factory=Path)
    django: str | None = None
    around: str | None = None
    threads: int = 8
    async_jobs: int = 100
    job_timeout_seconds: int = 3600
    protect_after_seconds: int | None = None
    visibility_timeout_seconds: int | None = None
    wait_seconds: int = WAIT_SECONDS_MAX
    max_memory_mb: int | None = None
    stop_when_empty: bool = False
    status_file: Path | None = None
    log_format: Literal["json", "console"] = "json"
    log_level: str = "info"
    #: Somebody looks on, at a terminal or under `jobrunner dev`: what else is said once a minute is said each time.
    watched: bool = False
    metrics: Literal["emf", "emf-totals", "off"] = "off"
    #: How the span of a run hangs together with that of its send: by a link between two traces, or as its child.
    trace: Literal["link", "parent"] = "link"

    def variables(self) -> dict[str, str]:
        """Give what the app's own code and the programs it starts should know as well, by its variables."""
        told = {"MODULE": self.module, "APP_DIR": str(self.app_dir.resolve())}
        if not (self.django and os.environ.get("JOBRUNNER_QUEUE_URL")):  # Django's settings have names for queues by it
            told["QUEUE_URL"] = self.queue_url
        told |= {name: given for name, given in (("AROUND", self.around), ("DJANGO", self.django)) if given}
        return {f"JOBRUNNER_{name}": value for name, value in told.items()}

    def __post_init__(self) -> None:
        """Check every limit."""
        check_queue_url(self.queue_url)
        if not self.app_dir.is_dir():
            raise SettingsError(f"--app-dir {self.app_dir} is not a directory: name the folder that holds the module")
        if self.around is not None:
            check_around(self.around)
        _check_range("--threads", self.threads, 1, 1_000)
        _check_range("--async-jobs", self.async_jobs, 1, 5_000)
        _check_range("--job-timeout", self.job_timeout_seconds, 0, VISIBILITY_SECONDS_MAX, unit="seconds (0: no limit)")
        if self.protect_after_seconds is not None:
            _check_range("--protect-after", self.protect_after_seconds, 1, VISIBILITY_SECONDS_MAX, unit="seconds")
        _check_range("--wait-seconds", self.wait_seconds, 1, WAIT_SECONDS_MAX)
        if self.visibility_timeout_seconds is not None:
            check_visibility_timeout(self.visibility_timeout_seconds, "--visibility-timeout")
        if self.max_memory_mb is not None:
            _check_range("--max-memory-mb", self.max_memory_mb, 1, 1_000_000)
        if self.status_file is not None and not self.status_file.absolute().parent.is_dir():
            raise SettingsError(f"--status-file {self.status_file}: its folder does not exist; create it first")


def check_around(reference: str) -> None:
    """Raise SettingsError unless the reference has the form of one."""
    if not re.fullmatch(r"[^:]+:[^:]+", reference):
        raise SettingsError(f"--around {reference!r} is not MODULE:CALLABLE, such as web.app:app.app_context")


def check_queue_url(url: str) -> None:
    """Raise SettingsError unless the URL can be that of a standard queue."""
    if not url:
        raise SettingsError(
            "no queue: give --queue-url or set JOBRUNNER_QUEUE_URL (a web app: queue_url=, or the variable). "
            "On a laptop `jobrunner dev` makes one and prints the variables"
        )
    if url.startswith("inline"):
        raise SettingsError(f"{url!r}: `inline:` is for enqueue, which runs the job at once; it is no queue")
    if url != url.strip():
        raise SettingsError(f"the queue's URL has white space around it: {url!r}")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SettingsError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
        raise SettingsError(
            f"{url!r} is not a queue URL such as https://sqs.eu-west-1.amazonaws.com/123456789012/jobs: "
            "`aws sqs get-queue-url --queue-name NAME` prints yours"
        )
    if url.endswith(".fifo"):
        raise SettingsError(
            f"{url} is a FIFO queue: a failed message there blocks its whole group while it backs off. "
            "Use a standard queue; jobs must be safe to repeat and to reorder anyway"
        )


def check_visibility_timeout(seconds: int, source: str) -> None:
    """Raise SettingsError unless leases of this length can be kept."""
    if not VISIBILITY_SECONDS_MIN <= seconds <= VISIBILITY_SECONDS_MAX:
        raise SettingsError(
            f"{source} is {seconds} s, outside {VISIBILITY_SECONDS_MIN} to {VISIBILITY_SECONDS_MAX}: "
            "60 s suits most apps, since running jobs renew it; pass --visibility-timeout or change the queue"
        )


def _check_range(flag: str, value: int, least: int, most: int, unit: str = "") -> None:
    if not least <= value <= most:
        raise SettingsError(f"{flag} is {value}, outside {least} to {most} {unit}".rstrip())
