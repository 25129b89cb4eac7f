"""How long the queue is, in numbers; main thread."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from jobrunner.operate.queues import Figures, OperatedQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one queue holds; SQS's counts are approximate, and a minute old at worst."""

    queue_url: str
    visible: int
    in_flight: int
    delayed: int

    def total(self) -> int:
        """Count what is not done."""
        return self.visible + self.in_flight + self.delayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A queue and its dead letters at one moment, with what CloudWatch says of it."""

    queue: Counts
    dead: Counts | None
    figures: Figures = field(default_factory=Figures)

    def document(self) -> dict[str, Any]:
        """Give it as JSON."""
        return {"queue": asdict(self.queue), **asdict(self.figures), "dead": asdict(self.dead) if self.dead else None}

    def lines(self) -> Iterator[str]:
        """Give it as text."""
        figures = self.figures
        yield self.queue.queue_url
        yield row(f"{self.queue.visible:,}", "visible", "wait for a worker")
        yield row(f"{self.queue.in_flight:,}", "in flight", "run, or wait for their retry")
        yield row(f"{self.queue.delayed:,}", "delayed", "were sent with a delay")
        if figures.oldest_seconds is not None:
            yield row(f"{figures.oldest_seconds:,.0f}", "s oldest", "age of the oldest message, by CloudWatch")
        if figures.sent_per_second is not None and figures.deleted_per_second is not None:
            sent = f"while {figures.sent_per_second:,.1f}/s came in, by CloudWatch"
            yield row(f"{figures.deleted_per_second:,.1f}", "done/s", sent)
        if self.dead is None:
            yield "  no dead-letter queue: jobrunner check says how to make one"
        else:
            hint = "given up: jobrunner dead list" if self.dead.total() else "none given up"
            yield row(f"{self.dead.total():,}", "dead", hint)


def row(number: str, name: str, note: str = "") -> str:
    """Write a number, what it counts, and what is to say of it, below the others."""
    return f"  {number:>9} {name:<10} {note}".rstrip()


def look(queue: OperatedQueue, figures: Figures) -> Status:
    """Ask the queue and its dead-letter queue; raises QueueError."""
    values = queue.values()
    dead = queue.dead_letters(values)
    return Status(
        queue=_counts(queue.url, values),
        dead=_counts(dead.url, dead.values()) if dead else None,
        figures=figures,
    )


def _counts(url: str, values: Any) -> Counts:
    visible, in_flight, delayed = (
        int(values.get(f"ApproximateNumberOfMessages{kind}", 0)) for kind in ("", "NotVisible", "Delayed")
    )
    return Counts(queue_url=url, visible=visible, in_flight=in_flight, delayed=delayed)
