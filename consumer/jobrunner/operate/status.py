"""How long the queue is, in numbers; main thread."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from jobrunner.operate.queues import OperatedQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one queue holds; SQS's counts are approximate, and a minute old at worst."""

    queue_url: str
    visible: int
    in_flight: int
    delayed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A queue and its dead letters at one moment; `oldest_seconds` is None where nobody knows."""

    queue: Counts
    oldest_seconds: float | None
    dead: Counts | None

    def document(self) -> dict[str, Any]:
        """Give it as JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Give it as text."""
        yield self.queue.queue_url
        yield f"  {self.queue.visible:>9,} visible    wait for a worker"
        yield f"  {self.queue.in_flight:>9,} in flight  run, or wait for their retry"
        yield f"  {self.queue.delayed:>9,} delayed    were sent with a delay"
        if self.oldest_seconds is not None:
            yield f"  {self.oldest_seconds:>9,.0f} s oldest   age of the oldest message, by CloudWatch"
        if self.dead is None:
            yield "  no dead-letter queue: jobrunner check says how to make one"
        else:
            hint = "given up: jobrunner dead list" if self.dead.visible + self.dead.in_flight else "none given up"
            yield f"  {self.dead.visible + self.dead.in_flight:>9,} dead       {hint}"


def look(queue: OperatedQueue) -> Status:
    """Ask the queue and its dead-letter queue; raises QueueError."""
    values = queue.values()
    dead = queue.dead_letters(values)
    return Status(
        queue=_counts(queue.url, values),
        oldest_seconds=queue.oldest_seconds(),
        dead=_counts(dead.url, dead.values()) if dead else None,
    )


def _counts(url: str, values: Any) -> Counts:
    visible, in_flight, delayed = (
        int(values.get(f"ApproximateNumberOfMessages{kind}", 0)) for kind in ("", "NotVisible", "Delayed")
    )
    return Counts(queue_url=url, visible=visible, in_flight=in_flight, delayed=delayed)
