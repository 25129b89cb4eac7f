"""What `status --watch` shows, as lines of a width; pure, no thread."""

from collections.abc import Iterable, Iterator, Sequence

from jobrunner.operate.queues import span
from jobrunner.operate.status import row
from jobrunner.operate.watch import View
from jobrunner.operate.workers import Worker

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.:-=+*#"
#: On less nothing can be read.
WIDTH_LEAST = 20
#: Left of a picture stand a number and its name.
PICTURE_AT = 24
PICTURE_MAX = 60
METHODS_SHOWN = 5


def frame(views: Iterable[View], workers: Iterable[Worker], *, width: int, blocks: str = BLOCKS) -> list[str]:
    """Draw all queues, and what the workers here run; no line is longer than the width."""
    width = max(width, WIDTH_LEAST)
    lines = [line for view in views for line in (*_queue(view, width, blocks), "")]
    lines += [line for worker in workers for line in _worker(worker)]
    return [cut(line, width) for line in lines]


def cut(line: str, width: int) -> str:
    """Shorten a line to a width."""
    return line if len(line) <= width else f"{line[: width - 3]}..."


def _queue(view: View, width: int, blocks: str) -> Iterator[str]:
    queue, figures, dead = view.status.queue, view.status.figures, view.status.dead
    room = min(PICTURE_MAX, width - PICTURE_AT)
    url = queue.queue_url
    yield url if len(url) <= width else f"...{url[3 - width :]}"  # its name is at the end
    yield row(f"{queue.visible:,}", "visible", picture(view.visible, room, blocks))
    yield row(f"{queue.in_flight:,}", "in flight", picture(view.in_flight, room, blocks))
    yield row(f"{queue.delayed:,}", "delayed")
    if figures.oldest_seconds is not None:
        yield row(span(figures.oldest_seconds), "oldest", "by CloudWatch")
    if view.sent is not None and view.deleted is not None:
        yield row(f"{view.sent:,.1f}", "in/s", f"{view.deleted:,.1f} out/s in the last minute, by {view.source}")
    left, outlook = _outlook(view)
    yield row(left, "to go", outlook)
    if dead is None:
        yield "            no dead-letter queue: jobrunner check"
    else:
        yield row(f"{dead.total():,}", "dead", _dead(view))


def _outlook(view: View) -> tuple[str, str]:
    drained = view.drained_seconds()
    if not view.status.queue.total():
        return "-", "it is empty"
    if drained is not None:
        return span(drained), f"it gets {-(view.net or 0):,.1f}/s shorter"
    if view.net is None:
        return "?", "the next look will say"
    return "-", f"it gets {view.net:,.1f}/s longer" if view.net else "it gets neither shorter nor longer"


def _dead(view: View) -> str:
    count = view.status.dead.total() if view.status.dead else 0
    if not view.dead_growth:
        return "given up: jobrunner dead list" if count else "none given up"
    largest = sorted(view.dead_by_method.items(), key=lambda item: -item[1])
    words = [f"{many:,} {method}" for method, many in largest[:METHODS_SHOWN]]
    others = count - sum(many for _, many in largest[:METHODS_SHOWN])
    if others > 0:  # of more methods, not looked at yet, or hidden from us by whoever looks at them now
        words.append(f"{others:,} others")
    return f"+{view.dead_growth:,}: {', '.join(words)}"


def _worker(worker: Worker) -> Iterator[str]:
    state = "stuck or dead" if worker.is_stale() else worker.state
    yield f"worker {worker.pid}: {state}, {worker.in_hand} in hand, {worker.deleted:,} deleted"
    for running in worker.running:
        yield f"  {running.count:>9,} x {running.method}, the oldest for {span(running.oldest_seconds)}"


def picture(values: Sequence[int], room: int, blocks: str = BLOCKS) -> str:
    """Draw the newest values as a line of bars; the highest is the largest of them."""
    shown = values[-room:] if room > 0 else ()
    most = max(shown, default=0)
    return "".join(blocks[-(-value * (len(blocks) - 1) // most) if most else 0] for value in shown)
