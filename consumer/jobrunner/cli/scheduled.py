"""The commands for jobs that wait for a later time: scheduled list, show, cancel; main thread."""

import json
import os
from typing import TYPE_CHECKING

import click

from jobrunner.cli import options
from jobrunner.errors import SettingsError

if TYPE_CHECKING:
    from jobrunner.queue.schedules import Schedules


@click.group()
def scheduled() -> None:
    """Look at jobs that wait for a later time, or take them back.

    Those are what `enqueue(..., at=)` put off for later than 15 minutes. They need JOBRUNNER_LATER_GROUP and
    JOBRUNNER_LATER_ROLE_ARN, as the web app does.
    """


@scheduled.command("list")
@options.queue_url
@options.as_json
def list_(queue_url: str, *, as_json: bool) -> None:
    """Show each: its id, its time, its method. A page at a time.

    \b
    Example:
      jobrunner scheduled list
    """
    from jobrunner.message import decode_or_none
    from jobrunner.operate.dead import NO_METHOD

    schedules = _open(queue_url)
    for job_id in schedules.ids():
        if found := schedules.get(job_id):
            call = decode_or_none(found.body)
            method = call.method if call else NO_METHOD
            line = {"id": job_id, "at": found.at.isoformat(), "method": method}
            click.echo(json.dumps(line) if as_json else f"{line['at']}  {method}  {job_id}")


@scheduled.command()
@options.queue_url
@click.argument("job_id", metavar="ID")
def show(queue_url: str, job_id: str) -> None:
    """Print one whole, as JSON.

    \b
    Example:
      jobrunner scheduled show 0f6c7f9e-5f4e-4f1c-9d0a-1d3a0d8b7c11
    """
    found = _open(queue_url).get(job_id)
    if found is None:
        raise _waits_no_more(job_id)
    document = {"id": found.id, "at": found.at.isoformat(), "group": found.group, "body": json.loads(found.body)}
    click.echo(json.dumps(document, indent=2))


@scheduled.command()
@options.queue_url
@click.argument("job_id", metavar="ID")
def cancel(queue_url: str, job_id: str) -> None:
    """Take one back; exit 2 if it is too late.

    \b
    Example:
      jobrunner scheduled cancel 0f6c7f9e-5f4e-4f1c-9d0a-1d3a0d8b7c11
    """
    from jobrunner.sending import later

    if not later.cancel(job_id, queue_url=queue_url):
        raise _waits_no_more(job_id)
    click.echo("cancelled")


def _waits_no_more(job_id: str) -> SettingsError:
    return SettingsError(f"no job {job_id!r} waits for its time: it is on the queue, done, or was cancelled")


def _open(queue_url: str) -> "Schedules":
    from jobrunner.queue.schedules import Place, Schedules
    from jobrunner.settings import check_queue_url

    check_queue_url(queue_url)
    return Schedules(place=Place.told(os.environ), queue_url=queue_url, read_seconds=10, attempts=3)
