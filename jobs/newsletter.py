"""The membership newsletter: a cron in production, a button on the demo's page."""

from datetime import UTC, datetime

from jobrunner import current_job
from jobs import _records

MEMBERS = ("Ada", "Grace", "Edsger")


def write():
    """Write one letter to each member, once for each time it is due, however often this runs."""
    job = current_job()
    due = job.scheduled_at or job.sent_at
    for member in MEMBERS:
        path = _records.folder("newsletters") / f"{due:%Y-%m-%dT%H%M%S}-{member}.txt"
        if not path.exists():
            text = f"Dear {member},\n\nthis is your newsletter of {due:%d %B %Y, %H:%M} UTC.\n"
            _records.write(path, f"{text}Written at {datetime.now(UTC):%H:%M:%S}.\n".encode())
