"""Options that several commands share; main thread."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import click

from jobrunner.settings import MODULE

Option = Callable[[Any], Any]


def of(*options: Option) -> Option:
    """Join options into one decorator that keeps their order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def variable(name: str) -> dict[str, Any]:
    """Let an option be set by an environment variable, and say so in its help."""
    return {"envvar": f"JOBRUNNER_{name}", "show_envvar": True}


def _from_app(ctx: click.Context, names: Callable[..., Any]) -> list[str]:
    """Complete from the app that the words so far point to; nothing where it does not load."""
    told: dict[str, Any] = {
        name: ctx.params.get(name) or os.environ.get(f"JOBRUNNER_{name.upper()}", default)
        for name, default in (("module", MODULE), ("app_dir", "."), ("django", None))
    }
    with suppress(Exception), redirect_stdout(io.StringIO()):  # a completion must not say anything else
        return list(names(**told | {"app_dir": Path(told["app_dir"])}))
    return []


def complete_methods(ctx: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    """Give the methods that begin so."""
    from jobrunner.app.loading import load_app

    found = _from_app(ctx, lambda **app: load_app(**app).jobs)
    return [name for name in found if name.startswith(incomplete)]


def complete_crons(ctx: click.Context, _argument: click.Parameter, incomplete: str) -> list[str]:
    """Give the crons that begin so."""
    from jobrunner import crons

    path = ctx.params.get("path")
    found = _from_app(ctx, lambda **app: [cron.name for cron in crons.load(path=path, **app)])
    return [name for name in found if name.startswith(incomplete)]


queue_url = click.option("--queue-url", default="", **variable("QUEUE_URL"), help="URL of the SQS queue.")
module = click.option(
    "--module", default=MODULE, show_default=True, **variable("MODULE"), help="Module that holds the jobs."
)
app_dir = click.option(
    "--app-dir",
    default=".",
    show_default=True,
    **variable("APP_DIR"),
    type=click.Path(path_type=Path, resolve_path=True, exists=True, file_okay=False),
    help="Folder of the app's code, put first on sys.path.",
)
django = click.option(
    "--django",
    **variable("DJANGO"),
    metavar="SETTINGS",
    help="Django's settings, such as shop.settings: the tasks of its apps are jobs as well.",
)
#: Where the jobs are.
app = of(module, app_dir, django)
crons_file = click.option(
    "--crons",
    "path",
    **variable("CRONS"),
    type=click.Path(path_type=Path),
    help="The schedule file; by default crons.toml beside the module.",
)
around = click.option(
    "--around",
    **variable("AROUND"),
    metavar="MODULE:CALLABLE",
    help="Context manager entered around each job, such as web.app:app.app_context.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

#: What a worker is told: the fields of Settings.
worker = of(
    queue_url,
    app,
    around,
    click.option(
        "--threads", default=8, show_default=True, **variable("THREADS"), help="Jobs that run at the same time."
    ),
    click.option(
        "--async-jobs",
        default=100,
        show_default=True,
        **variable("ASYNC_JOBS"),
        help="`async def` jobs that run at the same time, beside those; they hold no thread.",
    ),
    click.option(
        "--job-timeout",
        "job_timeout_seconds",
        default=3600,
        show_default=True,
        **variable("JOB_TIMEOUT"),
        metavar="SECONDS",
        help="A job that runs longer ends the process, an `async def` one only itself; 0: no limit.",
    ),
    click.option(
        "--protect-after",
        "protect_after_seconds",
        type=int,
        **variable("PROTECT_AFTER"),
        metavar="SECONDS",
        help="On ECS: while a job is older than this, its task is protected from scale-in and deploys.",
    ),
    click.option(
        "--visibility-timeout",
        "visibility_timeout_seconds",
        type=int,
        **variable("VISIBILITY_TIMEOUT"),
        metavar="SECONDS",
        help="How soon a dead worker's jobs start elsewhere; by default the queue's own.",
    ),
    click.option(
        "--wait-seconds", default=20, show_default=True, **variable("WAIT_SECONDS"), help="Length of a long poll."
    ),
    click.option(
        "--max-memory-mb",
        type=int,
        **variable("MAX_MEMORY_MB"),
        help="End, and so start afresh, when resident memory is over this.",
    ),
    click.option(
        "--stop-when-empty",
        is_flag=True,
        **variable("STOP_WHEN_EMPTY"),
        help="Stop when a long poll brings nothing and nothing runs.",
    ),
    click.option(
        "--status-file",
        type=click.Path(path_type=Path, resolve_path=True),
        **variable("STATUS_FILE"),
        help="Where to write the state that `jobrunner health` reads; one file per process.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["json", "console"]),
        **variable("LOG_FORMAT"),
        help="By default console on a terminal, else json.",
    ),
    click.option(
        "--log-level",
        default="info",
        show_default=True,
        **variable("LOG_LEVEL"),
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="The least level to write.",
    ),
    click.option(
        "--metrics",
        default="off",
        show_default=True,
        **variable("METRICS"),
        type=click.Choice(["emf", "emf-totals", "off"]),
        help="emf: once a minute, lines that CloudWatch Logs turns into metrics by itself; emf-totals: not by method.",
    ),
    click.option(
        "--trace",
        default="link",
        show_default=True,
        **variable("TRACE"),
        type=click.Choice(["link", "parent"]),
        help="Where the app uses OpenTelemetry: a job's span is linked to that of its enqueue, or its child.",
    ),
)
