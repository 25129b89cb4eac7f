"""The commands for dead letters: dead list, show, retry, drop; main thread."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli import options
from jobrunner.errors import AppError, SettingsError

if TYPE_CHECKING:
    from jobrunner.app.catalog import Catalog
    from jobrunner.operate.dead import DeadLetters
    from jobrunner.operate.queues import DeadLetter

where = options.of(options.queue_url, options.app)
which = options.of(
    click.argument("ids", nargs=-1, metavar="[ID]..."),
    click.option("--method", shell_complete=options.complete_methods, help="Those that call this method."),
    click.option("--all", "everything", is_flag=True, help="Every dead letter of the queue."),
)


@click.group()
def dead() -> None:
    """Look at dead letters, send them again, or drop them."""


@dead.command("list")
@where
@options.as_json
def list_(queue_url: str, *, as_json: bool, **app: Any) -> None:
    """Group them by method and reason, with counts and ages.

    SQS keeps no reason: it is what today's code says of each message (malformed, unknown_method,
    bad_params, else failed). Looking hides messages until it has seen all: for half
    a minute at most, or longer where there are thousands.

    \b
    Example:
      jobrunner dead list --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/jobs
    """
    letters = _open(queue_url)
    groups = letters.groups(_jobs(**app))
    if as_json:
        click.echo(json.dumps([group.document() for group in groups]))
        return
    for group in groups:
        click.echo("\n".join(group.lines()))
    if not groups:
        click.echo("no dead letters")


@dead.command()
@where
@click.argument("wanted", metavar="ID")
def show(queue_url: str, wanted: str, **app: Any) -> None:
    """Print one dead letter whole, as JSON.

    ID is the message's or its job's.

    \b
    Example:
      jobrunner dead show 0f6c7f9e-5f4e-4f1c-9d0a-1d3a0d8b7c11
    """
    from jobrunner.operate import dead as room

    letter = _open(queue_url).find(wanted)
    if letter is None:
        raise SettingsError(f"no dead letter has the id {wanted!r}: jobrunner dead list --json has them all")
    click.echo(json.dumps({"reason": room.reason_of(letter, _jobs(**app)), **letter.document()}, indent=2))


@dead.command()
@options.queue_url
@which
@options.as_json
def retry(queue_url: str, ids: tuple[str, ...], method: str | None, *, everything: bool, as_json: bool) -> None:
    """Send dead letters to their queue again: all, by method, or by id.

    Each is sent before it is deleted from the dead letters: cut short, a job may run twice, none is lost.

    \b
    Examples:
      jobrunner dead retry --all
      jobrunner dead retry --method thumbnails.make
      jobrunner dead retry 0f6c7f9e-5f4e-4f1c-9d0a-1d3a0d8b7c11
    """
    chosen = _chosen(ids, method, everything=everything)
    letters = _open(queue_url)
    with _progress("sending again", letters.length()) as progress:
        count = letters.retry_all(progress) if everything else letters.retry(chosen, progress)
    _say("sent again", count, ids, method, as_json=as_json)


@dead.command()
@options.queue_url
@which
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def drop(
    queue_url: str, ids: tuple[str, ...], method: str | None, *, everything: bool, yes: bool, as_json: bool
) -> None:
    """Delete dead letters for good: all, by method, or by id.

    \b
    Examples:
      jobrunner dead drop --method old.job
      jobrunner dead drop --all --yes
    """
    chosen = _chosen(ids, method, everything=everything)
    letters = _open(queue_url)
    if not yes:
        if not sys.stdin.isatty():
            raise SettingsError("to drop dead letters without being asked, say --yes")
        meant = letters.ids(chosen)
        click.confirm(f"Delete {len(meant)} dead letters for good?", abort=True, err=True)
        chosen = _of(meant)  # and none that came since
    with _progress("dropping", letters.length()) as progress:
        count = letters.drop(chosen, progress)
    _say("dropped", count, ids, method, as_json=as_json)


def _open(queue_url: str) -> "DeadLetters":
    from jobrunner.operate import dead as room

    return room.of(queue_url)


def _jobs(**app: Any) -> "Catalog | None":
    """Load the app, for reasons only: it must not keep anybody from looking.

    After the queue was opened: what botocore imports late must not find the app's files of the same name.
    """
    from jobrunner.app.loading import load_app

    try:
        return load_app(**app)
    except AppError as error:
        click.echo(f"reasons are not known without the app: {error}", err=True)
        return None


def _chosen(ids: tuple[str, ...], method: str | None, *, everything: bool) -> "Callable[[DeadLetter], bool]":
    from jobrunner.operate import dead as room

    if [bool(ids), bool(method), everything].count(True) != 1:
        raise SettingsError("say which dead letters: one of ID..., --method NAME or --all")
    if ids:
        return lambda letter: not room.ids_of(letter).isdisjoint(ids)
    return lambda letter: everything or room.method_of(letter) == method


def _of(message_ids: set[str]) -> "Callable[[DeadLetter], bool]":
    return lambda letter: letter.message_id in message_ids


@contextmanager
def _progress(label: str, length: int) -> "Iterator[Callable[[int], None]]":
    """Draw a bar on stderr, where a person sees it and a pipe does not."""
    hidden = not (length and sys.stderr.isatty())
    with click.progressbar(length=length, label=label, file=sys.stderr, hidden=hidden) as bar:
        yield bar.update
        bar.update((bar.length or 0) - bar.pos)  # SQS's count is about right: done is done


def _say(what: str, count: int, ids: tuple[str, ...], method: str | None, *, as_json: bool) -> None:
    click.echo(json.dumps({"count": count}) if as_json else f"{count} {what}")
    if count < len(ids):
        raise SettingsError(f"{len(ids) - count} of the ids {', '.join(ids)} are not among the dead letters")
    if method and not count:
        raise SettingsError(f"no dead letter calls {method!r}: jobrunner dead list has the methods")
