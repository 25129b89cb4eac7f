"""`status --watch`: draws the screen anew in its place, or writes plain text where nobody looks; main thread."""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from jobrunner.errors import LastingQueueError, QueueError
from jobrunner.operate.screen import ASCII, BLOCKS, cut, frame
from jobrunner.operate.watch import QueueWatch
from jobrunner.operate.workers import workers_in

#: A file has lines of any length.
WHOLE = 10_000
#: Of a terminal that does not know its size, or has nearly none.
FALLBACK, HEIGHT_LEAST = (80, 24), 3
#: To the upper left corner; to the end of the line; to the end of the screen.
HOME, END_OF_LINE, END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(watches: Sequence[QueueWatch], paths: Sequence[Path], *, every_seconds: float) -> None:
    """Look at queues and workers until Ctrl-C; raises QueueError where time mends none of them."""
    blocks = BLOCKS if _can_write(BLOCKS) else ASCII
    is_drawn = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if is_drawn:
        click.clear()
    with suppress(KeyboardInterrupt):
        while True:
            width, height = _size() if is_drawn else (WHOLE, 0)
            lines = _look(watches, paths, width, blocks)
            if is_drawn:
                _draw(lines, width, height)
            else:
                click.echo("\n".join([*lines, ""]))
            time.sleep(every_seconds)


def _look(watches: Sequence[QueueWatch], paths: Sequence[Path], width: int, blocks: str) -> list[str]:
    """Give the lines of one look; what cannot be asked is said in its place, since just then it is watched."""
    workers = workers_in(paths)
    lines = [datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")]
    for_good = 0
    for each in watches:
        try:
            lines += frame([each.look(workers)], [], width=width, blocks=blocks)
        except QueueError as error:
            for_good += isinstance(error, LastingQueueError)
            if for_good == len(watches):
                raise
            lines += [cut(line, width) for line in (each.queue_url, *f"  {error}".splitlines(), "")]
    lines += frame([], workers, width=width, blocks=blocks)
    if paths and not workers:
        lines.append(cut(f"no worker has written {' or '.join(map(str, paths))}", width))
    return lines


def _draw(lines: list[str], width: int, height: int) -> None:
    """Write over what is there: a screen that is cleared first flickers."""
    if len(lines) > height - 1:
        hidden = len(lines) - height + 2
        lines = [*lines[: height - 2], cut(f"... {hidden} more lines: make the window higher", width)]
    drawn = "".join(f"{line}{END_OF_LINE}\n" for line in lines)
    click.echo(f"{HOME}{drawn}{END_OF_SCREEN}", nl=False)


def _size() -> tuple[int, int]:
    """Give the terminal's columns and lines; one that does not know them yet has none."""
    width, height = os.get_terminal_size(sys.stdout.fileno())
    return (width, max(height, HEIGHT_LEAST)) if width and height else FALLBACK


def _can_write(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
