"""The commands that put jobs on a queue, or say which there are: enqueue, methods; main thread."""

import json
from pathlib import Path
from typing import Any

import click

from jobrunner.cli import options
from jobrunner.errors import SettingsError


@click.command()
@options.queue_url
@click.argument("method")
@click.argument("params", metavar="[PARAMS_JSON]", default="{}")
@click.option("--delay-seconds", type=int, help="Hide the job at first, 900 s at most; by default the queue's own.")
@click.option("--group", help="Message group, for fair sharing of the queue between tenants.")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="Bound to every log line of the job; repeatable.")
def enqueue(
    queue_url: str, method: str, params: str, delay_seconds: int | None, group: str | None, context: tuple[str, ...]
) -> None:
    """Put one job on the queue and print its id.

    PARAMS_JSON is an object (by name) or an array (by position).

    \b
    Examples:
      jobrunner enqueue thumbnails.make '{"key": "cat.png"}'
      jobrunner enqueue newsletter.write --delay-seconds 60 --context request_id=7f3a
    """
    from jobrunner.app.opening import open_app
    from jobrunner.sending import inline, producer

    if queue_url == inline.URL:
        open_app(Path.cwd())
    sent = producer.enqueue(
        method,
        _json(params),
        delay_seconds=delay_seconds,
        group=group,
        context=dict(_pair(word) for word in context),
        queue_url=queue_url,
    )
    click.echo(sent)


@click.command()
@options.module
@options.app_dir
def methods(module: str, app_dir: Path) -> None:
    """Print what messages may call, with signatures.

    \b
    Example:
      jobrunner methods --module shop.jobs --app-dir /srv/app
    """
    from jobrunner.app import catalog

    found = catalog.load_app(app_dir, module)
    for job in found.jobs.values():
        click.echo(f"{job.method}{job.signature}")
    if not found.jobs:
        click.echo(f"{module} has no methods: write public functions in it, or name another --module", err=True)
    for method, reason in found.left_out.items():
        click.echo(f"left out: {method}: {reason}", err=True)


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
