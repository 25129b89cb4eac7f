"""The commands of the schedule file: crons list, next, plan, apply, run; main thread."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from jobrunner.cli import options
from jobrunner.errors import ScheduleError

place = options.of(
    options.app,
    options.crons_file,
    options.queue_url,
    click.option("--app", required=True, **options.variable("APP"), help="Name of the app."),
    click.option(
        "--env",
        "environment",
        required=True,
        **options.variable("ENV"),
        help="Name of the environment, such as production.",
    ),
    click.option(
        "--role-arn",
        required=True,
        **options.variable("CRONS_ROLE_ARN"),
        help="The role with which Scheduler sends to the queue.",
    ),
    click.option(
        "--dead-letter-arn",
        **options.variable("CRONS_DEAD_LETTER_ARN"),
        help="A standard queue for ticks that Scheduler could not send.",
    ),
    click.option("--prune", is_flag=True, help="Delete schedules of our group that the file does not name."),
)


@click.group()
def crons() -> None:
    """Show, reconcile or fire the schedule file.

    It is crons.toml, beside the jobs.
    """


@crons.command("list")
@options.app
@options.crons_file
def list_(**app: Any) -> None:
    """Show each cron: what, when in words, its next times.

    \b
    Example:
      jobrunner crons list --module jobs
    """
    from jobrunner import crons as room

    found = _crons(**app)
    for line in room.describe(found):
        click.echo(line)
    if not found:
        click.echo("the file has no crons: write a table for each, such as [nightly]", err=True)


@crons.command("next")
@options.app
@options.crons_file
@click.option("-n", "count", default=10, show_default=True, help="How many times of each cron.")
@click.argument("names", nargs=-1, shell_complete=options.complete_crons)
def next_(count: int, names: tuple[str, ...], **app: Any) -> None:
    """Show the next times.

    A line each: first in UTC, then in the cron's own zone.

    \b
    Example:
      jobrunner crons next -n 3 weekly_newsletter
    """
    from jobrunner import crons as room

    for line in room.next_lines(room.select(_crons(**app), names), count):
        click.echo(line)


@crons.command()
@place
def plan(**options: Any) -> NoReturn:
    """Show how EventBridge Scheduler differs from the file.

    Exit 2 if it does, 0 if not.

    \b
    Example:
      jobrunner crons plan --app shop --env production --queue-url URL --role-arn ARN
    """
    from jobrunner import crons as room

    _, changes = _changes(**options)
    sys.exit(2 if any(change.kind not in room.LEFT_ALONE for change in changes) else 0)


@crons.command()
@place
def apply(**options: Any) -> None:
    """Make EventBridge Scheduler agree with the file.

    What is equal is not touched. One that fails does not stop the others.

    \b
    Example:
      jobrunner crons apply --app shop --env production --queue-url URL --role-arn ARN --prune
    """
    from jobrunner import crons as room

    scheduler, changes = _changes(**options)
    failures = scheduler.apply(changes)
    count = sum(change.kind not in room.LEFT_ALONE for change in changes)
    click.echo(f"changes made: {count - len(failures)}")
    if failures:
        raise ScheduleError("\n  ".join([f"{len(failures)} of {count} changes failed:", *failures]))


@crons.command("run")
@options.app
@options.crons_file
@options.queue_url
@click.option("--reload", is_flag=True, help="Start again when a file under --app-dir changes.")
@click.argument("name", required=False, shell_complete=options.complete_crons)
def run_(queue_url: str, name: str | None, *, reload: bool, **app: Any) -> None:
    """Fire the file onto a local queue, where no EventBridge is.

    With NAME: that one, now.

    \b
    Examples:
      jobrunner crons run
      jobrunner crons run weekly_newsletter
    """
    from jobrunner import crons as room

    if reload:
        from jobrunner.laptop import reload as reloading

        reloading.run_again_on_change(app["app_dir"])
    room.run(_crons(**app), name=name, queue_url=queue_url)


def _crons(**app: Any) -> Any:
    from jobrunner import crons as room

    return room.load(**app)


def _changes(*, prune: bool, path: Path | None, module: str, app_dir: Path, django: str | None, **place: Any) -> Any:
    from jobrunner import crons as room

    scheduler = room.reconciler(**place)
    crons = _crons(path=path, module=module, app_dir=app_dir, django=django)
    for line in room.warnings(crons):
        click.echo(line, err=True)
    changes = scheduler.plan(crons, prune=prune)
    for line in room.plan_lines(changes):
        click.echo(line)
    return scheduler, changes
