"""The commands that run a worker or ask after one: consume, health, dev; main thread."""

import gc
import os
import sys
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from jobrunner.cli import options
from jobrunner.errors import JobrunnerError, SettingsError
from jobrunner.settings import Settings


class Daemon(click.Command):
    """Says what is wrong with its words as a worker says all else, where a program reads it."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the words."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            words = " ".join(sys.argv) + os.environ.get("JOBRUNNER_LOG_FORMAT", "")
            if sys.stdout.isatty() or "console" in words:
                raise
            _refuse(SettingsError(error.format_message()), "json")


@click.command(cls=Daemon)
@options.worker
@click.option(
    "--reload",
    is_flag=True,
    **options.variable("RELOAD"),
    help="Development: start again when a Python file under --app-dir changes.",
)
def consume(log_format: Literal["json", "console"] | None, *, reload: bool, **given: Any) -> NoReturn:
    """Run the daemon: receive jobs, run them, delete them.

    SIGTERM and SIGINT stop it in under 3 seconds; SIGUSR1 logs every thread's stack and the jobs in hand.

    \b
    Examples:
      jobrunner consume --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/jobs
      jobrunner consume --threads 20 --around web.app:app.app_context
      jobrunner consume --stop-when-empty     # work off what is there, then end
    """
    log_format = log_format or ("console" if sys.stdout.isatty() else "json")
    try:
        watched = log_format == "console" or bool(os.environ.get("JOBRUNNER_DEV"))
        settings = Settings(log_format=log_format, watched=watched, **given)
    except SettingsError as error:
        _refuse(error, log_format)
    if reload:
        from jobrunner.laptop import reload as reloading

        reloading.run_again_on_change(settings.app_dir)
    _consume(settings)


def _consume(settings: Settings) -> NoReturn:
    gc.disable()  # until all is loaded: to look for garbage meanwhile takes a sixth of the start
    os.environ.update(settings.variables())  # what we were told holds for `enqueue` in jobs, and for their programs
    from jobrunner.telemetry import logs
    from jobrunner.worker import start

    log = logs.configure(log_format=settings.log_format, level=settings.log_level)
    try:
        start.consume(settings, log)
    except JobrunnerError as error:
        _refuse(error, settings.log_format)


def _refuse(error: JobrunnerError, log_format: Literal["json", "console"]) -> NoReturn:
    from jobrunner.telemetry import logs

    log = logs.configure(log_format=log_format, level="info")
    log.critical("worker.refused", error=str(error), code=int(error.exit_code))
    sys.exit(error.exit_code)


@click.command()
@click.option(
    "--status-file",
    "paths",
    multiple=True,
    required=True,
    **options.variable("STATUS_FILE"),
    type=click.Path(path_type=Path, resolve_path=True),
    help="What consume was given; repeatable.",
)
def health(paths: tuple[Path, ...]) -> None:
    """Exit 1 if a worker is stuck or dead.

    Exit 0 if each is alive, and polling or busy.

    \b
    Example:
      jobrunner health --status-file /run/worker-0.json --status-file /run/worker-1.json
    """
    from jobrunner.operate import workers

    verdicts = [workers.judge(path) for path in paths]
    for _, line in verdicts:
        click.echo(line)
    sys.exit(0 if all(healthy for healthy, _ in verdicts) else 1)


@click.command(context_settings={"allow_interspersed_args": False})
@options.app
@options.around
@options.crons_file
@click.option(
    "--queue", "queues", multiple=True, default=["jobs"], show_default=True, help="Name of a queue; repeatable."
)
@click.option(
    "--attempts",
    "attempts_max",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Attempts before a job is a dead letter: ten take half an hour, two some seconds.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default="a free one", help="Port of the embedded SQS."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def dev(path: Path | None, **given: Any) -> None:
    """Run everything on a laptop.

    That is: an embedded SQS, a consumer for each queue, the crons once their file is there, and COMMAND
    with its environment set. The jobs end with it. What else the consumer should know comes from its
    variables, such as JOBRUNNER_THREADS.

    \b
    Examples:
      jobrunner dev
      jobrunner dev -- flask --app web.app run --debug
      jobrunner dev --queue jobs --queue slow --attempts 2
    """
    from jobrunner.laptop import dev as laptop

    sys.exit(laptop.run(laptop.Laptop(crons=path, **given)))
