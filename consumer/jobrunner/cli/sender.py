"""The commands that put jobs on a queue, or say which there are: enqueue, methods; main thread."""

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from jobrunner.cli import options
from jobrunner.errors import AppError, BadParams, MalformedMessage, NoSuchModule, SettingsError, UnknownMethod
from jobrunner.message import DECODER
from jobrunner.settings import check_queue_url

ODD = "   # takes anything: a helper, or a decorator without functools.wraps?"


@click.command()
@options.queue_url
@options.app
@click.argument("method", shell_complete=options.complete_methods)
@click.argument("params", metavar="[PARAMS_JSON]", default="{}")
@click.option("--delay-seconds", type=int, help="Hide the job at first, 900 s at most; by default the queue's own.")
@click.option("--group", help="Message group, for fair sharing of the queue between tenants.")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="Bound to every log line of the job; repeatable.")
@click.option("--unchecked", is_flag=True, help="Send what the code here does not know, or would refuse.")
def enqueue(
    module: str,
    app_dir: Path,
    django: str | None,
    method: str,
    params: str,
    context: tuple[str, ...],
    *,
    unchecked: bool,
    **how: Any,
) -> None:
    """Put one job on the queue and print its id.

    PARAMS_JSON is an object (by name) or an array (by position). Where the module is at hand, name and
    params are checked first, as the worker will.

    \b
    Examples:
      jobrunner enqueue thumbnails.make '{"key": "cat.png"}'
      jobrunner enqueue newsletter.write --delay-seconds 60 --context request_id=7f3a
    """
    from jobrunner.app.opening import open_app
    from jobrunner.sending import inline, producer

    arguments = _json(params)
    os.environ["JOBRUNNER_MODULE"] = module
    if how["queue_url"] == inline.URL:
        os.environ["JOBRUNNER_QUEUE_URL"] = inline.URL  # for the job's own
        open_app(app_dir)
    else:
        check_queue_url(how["queue_url"])
        if not unchecked:
            _check(method, arguments, module=module, app_dir=app_dir, django=django)
    click.echo(producer.enqueue(method, arguments, context=dict(map(_pair, context)), **how))


@click.command()
@options.app
def methods(**app: Any) -> None:
    """Print what messages may call, with signatures.

    \b
    Example:
      jobrunner methods --module shop.jobs --app-dir /srv/app
    """
    from jobrunner.app.loading import load_app

    found = load_app(**app)
    for job in found.jobs.values():
        click.echo(f"{job.method}{job.signature}{ODD if job.takes_anything() else ''}")
    if not found.jobs:
        click.echo(f"{found.module} has no methods: write public functions in it, or name another --module", err=True)
    for method, reason in found.left_out.items():
        click.echo(f"left out: {method}: {reason}", err=True)


def _check(method: str, params: Any, **app: Any) -> None:
    """Raise what the worker's code would say of the call, as far as that code is here."""
    from jobrunner.app.loading import load_app

    try:
        with redirect_stdout(sys.stderr):  # the id alone goes to stdout
            found = load_app(**app)
    except NoSuchModule as error:
        click.echo(f"not checked: {error}", err=True)
        return
    except AppError as error:
        click.echo(f"not checked, since the app does not load here: {error}", err=True)
        return
    finally:
        # What botocore imports late must not find the app's files of the same name.
        if str(app["app_dir"]) in sys.path[:1]:
            del sys.path[0]
    try:
        found.find(method).bind(params)
    except (UnknownMethod, BadParams) as error:
        raise type(error)(f"{error}. Nothing was sent; --unchecked sends it all the same") from None


def _json(text: str) -> Any:
    try:
        return DECODER.decode(text)
    except MalformedMessage as error:
        raise SettingsError(f"PARAMS_JSON {text!r}: {error}; the worker would refuse it") from None
    except ValueError as error:
        raise SettingsError(
            f"PARAMS_JSON {text!r} is not JSON: {error}. Quote it for the shell: '{{\"n\": 1}}'"
        ) from None


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise SettingsError(f"--context {word!r} is not NAME=VALUE")
    return name, value
