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
        yield f"  {self.queue.visible:>9,} visible    wait for a worker"
        yield f"  {self.queue.in_flight:>9,} in flight  run, or wait for their retry"
        yield f"  {self.queue.delayed:>9,} delayed    were sent with a delay"
        if figures.oldest_seconds is not None:
            yield f"  {figures.oldest_seconds:>9,.0f} s oldest   age of the oldest message, by CloudWatch"
        if figures.sent_per_second is not None and figures.deleted_per_second is not None:
            rate = f"{figures.deleted_per_second:,.1f}"
            yield f"  {rate:>9} done/s     while {figures.sent_per_second:,.1f}/s came in, by CloudWatch"
        if self.dead is None:
            yield "  no dead-letter queue: jobrunner check says how to make one"
        else:
            hint = "given up: jobrunner dead list" if self.dead.total() else "none given up"
            yield f"  {self.dead.total():>9,} dead       {hint}"


def look(queue: OperatedQueue, figures: Figures | None = None) -> Status:
    """Ask the queue and its dead-letter queue, and CloudWatch unless its figures are given; raises QueueError."""
    values = queue.values()
    dead = queue.dead_letters(values)
    return Status(
        queue=_counts(queue.url, values),
        dead=_counts(dead.url, dead.values()) if dead else None,
        figures=queue.figures() if figures is None else figures,
    )


def _counts(url: str, values: Any) -> Counts:
    visible, in_flight, delayed = (
        int(values.get(f"ApproximateNumberOfMessages{kind}", 0)) for kind in ("", "NotVisible", "Delayed")
    )
    return Counts(queue_url=url, visible=visible, in_flight=in_flight, delayed=delayed)
