"""The command line: flags become Settings, then one call; no logic. Main thread."""

# Each command imports what it uses: `--help` and `enqueue` should not wait for the rest.
import json
import sys
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from consumer.errors import JobrunnerError, SettingsError
from consumer.message import Delivery
from consumer.settings import Settings

queue_url_option = click.option(
    "--queue-url", envvar="JOBRUNNER_QUEUE_URL", default="", show_envvar=True, help="URL of the SQS queue."
)
module_option = click.option(
    "--module",
    envvar="JOBRUNNER_MODULE",
    default="jobs",
    show_default=True,
    show_envvar=True,
    help="Module that holds the jobs.",
)
app_dir_option = click.option(
    "--app-dir",
    envvar="JOBRUNNER_APP_DIR",
    default=".",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path, resolve_path=True),
    help="Folder of the app's code, put first on sys.path.",
)


class Commands(click.Group):
    """Turns our errors into one line on stderr and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except JobrunnerError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jobrunner", prog_name="jobrunner")
def main() -> None:
    """Jobs and crons for a web app on AWS: SQS keeps them, this runs them."""


@main.command()
@queue_url_option
@module_option
@app_dir_option
@click.option(
    "--around",
    envvar="JOBRUNNER_AROUND",
    show_envvar=True,
    metavar="MODULE:CALLABLE",
    help="Context manager entered around each job, such as web.app:app.app_context.",
)
@click.option(
    "--threads",
    envvar="JOBRUNNER_THREADS",
    default=8,
    show_default=True,
    show_envvar=True,
    help="Jobs that run at the same time.",
)
@click.option(
    "--job-timeout",
    "job_timeout_seconds",
    envvar="JOBRUNNER_JOB_TIMEOUT",
    default=3600,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="A job that runs longer ends the process; 0: no limit.",
)
@click.option(
    "--visibility-timeout",
    "visibility_timeout_seconds",
    envvar="JOBRUNNER_VISIBILITY_TIMEOUT",
    type=int,
    show_envvar=True,
    metavar="SECONDS",
    help="How soon a dead worker's jobs start elsewhere; by default the queue's own.",
)
@click.option(
    "--wait-seconds",
    envvar="JOBRUNNER_WAIT_SECONDS",
    default=20,
    show_default=True,
    show_envvar=True,
    help="Length of a long poll.",
)
@click.option(
    "--max-memory-mb",
    envvar="JOBRUNNER_MAX_MEMORY_MB",
    type=int,
    show_envvar=True,
    help="End, and so start afresh, when resident memory is over this.",
)
@click.option(
    "--stop-when-empty",
    is_flag=True,
    envvar="JOBRUNNER_STOP_WHEN_EMPTY",
    show_envvar=True,
    help="Stop when a long poll brings nothing and nothing runs.",
)
@click.option(
    "--status-file",
    envvar="JOBRUNNER_STATUS_FILE",
    type=click.Path(path_type=Path, resolve_path=True),
    show_envvar=True,
    help="Where to write the state that `jobrunner health` reads; one file per process.",
)
@click.option(
    "--log-format",
    envvar="JOBRUNNER_LOG_FORMAT",
    type=click.Choice(["json", "console"]),
    show_envvar=True,
    help="By default console on a terminal, else json.",
)
@click.option(
    "--log-level",
    envvar="JOBRUNNER_LOG_LEVEL",
    default="info",
    show_default=True,
    show_envvar=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
@click.option(
    "--reload",
    is_flag=True,
    envvar="JOBRUNNER_RELOAD",
    show_envvar=True,
    help="Development: start again when a Python file under --app-dir changes.",
)
def consume(log_format: Literal["json", "console"] | None, *, reload: bool, **options: Any) -> NoReturn:
    r"""Run the daemon: receive jobs, run them, delete them.

    \b
    jobrunner consume --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/jobs
    """
    settings = Settings(log_format=log_format or ("console" if sys.stdout.isatty() else "json"), **options)
    if reload:
        from consumer import reload as reloading

        reloading.run_again_on_change(settings.app_dir)
    _consume(settings)


def consume_one() -> NoReturn:
    """Run the one delivery that a worker, our parent, puts into stdin."""
    from consumer import alone

    _consume(*alone.unpack(sys.stdin.buffer.read()))


def _consume(settings: Settings, only: Delivery | None = None) -> NoReturn:
    from consumer import logs, runner

    log = logs.configure(log_format=settings.log_format, level=settings.log_level)
    try:
        runner.consume(settings, log, only)
    except JobrunnerError as error:
        log.critical("worker.refused", error=str(error), code=int(error.exit_code))
        sys.exit(error.exit_code)


@main.command()
@queue_url_option
@click.argument("method")
@click.argument("params", metavar="[PARAMS_JSON]", default="{}")
@click.option("--delay-seconds", default=0, show_default=True, help="Hide the job at first, 900 s at most.")
@click.option("--group", help="Message group, for fair sharing of the queue between tenants.")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="Bound to every log line of the job; repeatable.")
def enqueue(
    queue_url: str, method: str, params: str, delay_seconds: int, group: str | None, context: tuple[str, ...]
) -> None:
    r"""Put one job on the queue and print its id.

    \b
    jobrunner enqueue thumbnails.make '{"key": "cat.png"}'
    """
    from consumer import producer

    sent = producer.enqueue(
        method,
        _json(params),
        delay_seconds=delay_seconds,
        group=group,
        context=dict(_pair(word) for word in context),
        queue_url=queue_url,
    )
    click.echo(sent)


@main.command()
@module_option
@app_dir_option
def methods(module: str, app_dir: Path) -> None:
    """Load the module and print what messages may call, with signatures."""
    from consumer import catalog

    catalog.open_app(app_dir.resolve())
    found = catalog.load(module)
    for job in found.jobs.values():
        click.echo(f"{job.method}{job.signature}")
    for method, reason in found.left_out.items():
        click.echo(f"left out: {method}: {reason}", err=True)


@main.command()
@click.option(
    "--status-file",
    "paths",
    envvar="JOBRUNNER_STATUS_FILE",
    multiple=True,
    required=True,
    show_envvar=True,
    type=click.Path(path_type=Path, resolve_path=True),
    help="What consume was given; repeatable.",
)
def health(paths: tuple[Path, ...]) -> None:
    """Exit 0 if each worker is alive and polling or busy, 1 if one is stuck or dead."""
    from consumer import health as status

    verdicts = [status.read(path) for path in paths]
    for _, line in verdicts:
        click.echo(line)
    sys.exit(0 if all(healthy for healthy, _ in verdicts) else 1)


@main.command(context_settings={"ignore_unknown_options": True})
@module_option
@app_dir_option
@click.option("--port", default=0, help="Port of the embedded SQS; by default a free one.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def dev(module: str, app_dir: Path, port: int, command: tuple[str, ...]) -> None:
    r"""Run everything on a laptop: an embedded SQS, the consumer, and COMMAND with its environment set.

    \b
    jobrunner dev -- flask --app web run --debug
    """
    from consumer import dev as laptop

    sys.exit(laptop.run(module=module, app_dir=app_dir, port=port, command=command))


@main.group()
def crons() -> None:
    """Show, check, reconcile and fire the schedule file, crons.toml beside the jobs."""


crons_option = click.option(
    "--crons",
    "path",
    envvar="JOBRUNNER_CRONS",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="The schedule file; by default crons.toml beside the module.",
)


@crons.command("list")
@module_option
@app_dir_option
@crons_option
def list_(module: str, app_dir: Path, path: Path | None) -> None:
    """Show each cron: what, when in words, its next times."""
    from consumer import crons as room

    for line in room.describe(_crons(module, app_dir, path)):
        click.echo(line)


@crons.command("next")
@module_option
@app_dir_option
@crons_option
@click.option("-n", "count", default=10, show_default=True, help="How many times of each cron.")
@click.argument("names", nargs=-1)
def next_(module: str, app_dir: Path, path: Path | None, count: int, names: tuple[str, ...]) -> None:
    """Show the next times, a line each: first in UTC, then in the cron's own zone."""
    from consumer import crons as room

    for line in room.next_lines(room.select(_crons(module, app_dir, path), names), count):
        click.echo(line)


def _place_options(command: Any) -> Any:
    for option in reversed(
        [
            module_option,
            app_dir_option,
            crons_option,
            queue_url_option,
            click.option("--app", envvar="JOBRUNNER_APP", required=True, show_envvar=True, help="Name of the app."),
            click.option(
                "--env",
                "environment",
                envvar="JOBRUNNER_ENV",
                required=True,
                show_envvar=True,
                help="Name of the environment, such as production.",
            ),
            click.option(
                "--role-arn",
                envvar="JOBRUNNER_CRONS_ROLE_ARN",
                required=True,
                show_envvar=True,
                help="The role with which Scheduler sends to the queue.",
            ),
            click.option(
                "--dead-letter-arn",
                envvar="JOBRUNNER_CRONS_DEAD_LETTER_ARN",
                show_envvar=True,
                help="A standard queue for ticks that Scheduler could not send.",
            ),
            click.option("--prune", is_flag=True, help="Delete schedules of our group that the file does not name."),
        ]
    ):
        command = option(command)
    return command


@crons.command()
@_place_options
def plan(**options: Any) -> NoReturn:
    """Show how EventBridge Scheduler differs from the file; exit 2 if it does, 0 if not."""
    _, changes = _changes(**options)
    sys.exit(2 if any(change.kind != "extra" for change in changes) else 0)


@crons.command()
@_place_options
def apply(**options: Any) -> None:
    """Make EventBridge Scheduler agree with the file; what is equal is not touched."""
    scheduler, changes = _changes(**options)
    scheduler.apply(changes)
    click.echo(f"{sum(change.kind != 'extra' for change in changes)} changes made")


@crons.command("run")
@module_option
@app_dir_option
@crons_option
@queue_url_option
@click.argument("name", required=False)
def run_(module: str, app_dir: Path, path: Path | None, queue_url: str, name: str | None) -> None:
    """Fire the file onto a local queue, where no EventBridge is; with NAME, that one, now."""
    from consumer import crons as room

    room.run(_crons(module, app_dir, path), name=name, queue_url=queue_url)


def _crons(module: str, app_dir: Path, path: Path | None) -> Any:
    from consumer import crons as room

    return room.load(module=module, app_dir=app_dir, path=path)


def _changes(module: str, app_dir: Path, path: Path | None, *, prune: bool, **place: Any) -> Any:
    from consumer import crons as room

    scheduler = room.reconciler(**place)
    changes = scheduler.plan(_crons(module, app_dir, path), prune=prune)
    for line in room.plan_lines(changes):
        click.echo(line)
    return scheduler, changes


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingsError(
            f"PARAMS_JSON {text!r} is not JSON: {error}. Quote it for the shell: '{{\"n\": 1}}'"
        ) from None


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise SettingsError(f"--context {word!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    main()
