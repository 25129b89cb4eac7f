"""Looks at a queue again and again, and says what becomes of it: rates, and when it is empty; main thread."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jobrunner.errors import QueueError
from jobrunner.operate.dead import method_of
from jobrunner.operate.queues import Figures, OperatedQueue
from jobrunner.operate.status import Status, look
from jobrunner.operate.walk import Walk
from jobrunner.operate.workers import Deletes, Worker

#: Rates are those of the last minute. CloudWatch has one figure a minute, and bills each question.
MINUTE_SECONDS = 60.0
#: So many looks are kept, for the picture of how it went.
LOOKS_MAX = 240
#: Looking at dead letters hides them from others for a moment: so many at most, and once a minute.
WALK_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one look shows. Rates in messages a second, None where nobody knows; `source` says who knows them."""

    status: Status
    visible: Sequence[int] = ()
    in_flight: Sequence[int] = ()
    sent: float | None = None
    deleted: float | None = None
    net: float | None = None
    source: str = ""
    dead_growth: int = 0
    dead_by_method: Mapping[str, int] = field(default_factory=dict)

    def drained_seconds(self) -> float | None:
        """Say when the queue is empty if it goes on like this; None if it gets no shorter."""
        return self.status.queue.total() / -self.net if self.net is not None and self.net < 0 else None


class QueueWatch:
    """Watches one queue."""

    def __init__(self, queue: OperatedQueue, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.queue_url = queue.url
        self._queue = queue
        self._clock = clock
        self._looks: deque[tuple[float, Status]] = deque(maxlen=LOOKS_MAX)
        self._deletes = Deletes(within_seconds=MINUTE_SECONDS)
        self._figures = Figures()
        self._asked_at = -MINUTE_SECONDS
        self._dead_at_first = -1
        self._dead_sorted = 0
        self._walked_at = -MINUTE_SECONDS
        self._dead_by_method: Mapping[str, int] = {}

    def status(self) -> Status:
        """Ask for the numbers of now, and CloudWatch once a minute; raises QueueError."""
        now = self._clock()
        if now - self._asked_at >= MINUTE_SECONDS:
            self._asked_at, self._figures = now, self._queue.figures()
        status = look(self._queue, self._figures)
        self._looks.append((now, status))
        return status

    def look(self, workers: Sequence[Worker] = ()) -> View:
        """Look once; raises QueueError."""
        status = self.status()
        net = self._net()
        sent, deleted, source = self._rates(net, workers)
        growth = self._dead_growth(status)
        return View(
            status=status,
            visible=[each.queue.visible for _, each in self._looks],
            in_flight=[each.queue.in_flight for _, each in self._looks],
            sent=sent,
            deleted=deleted,
            net=sent - deleted if net is None and sent is not None and deleted is not None else net,
            source=source,
            dead_growth=growth,
            dead_by_method=self._dead_by_method,
        )

    def _net(self) -> float | None:
        """Say how fast the queue got longer in the last minute, by what was seen of it."""
        now, latest = self._looks[-1]
        then, earlier = next((at, each) for at, each in self._looks if now - at <= MINUTE_SECONDS)
        return (latest.queue.total() - earlier.queue.total()) / (now - then) if now > then else None

    def _rates(self, net: float | None, workers: Sequence[Worker]) -> tuple[float | None, float | None, str]:
        """Say what came and what was done: by CloudWatch, or by the workers here and what is left of the queue."""
        figures = self._figures
        if figures.sent_per_second is not None and figures.deleted_per_second is not None:
            return figures.sent_per_second, figures.deleted_per_second, "CloudWatch"
        deleted = self._deletes.per_second(each for each in workers if each.queue_url == self._queue.url)
        if deleted is None or net is None:
            return None, None, ""
        return max(0.0, net + deleted), deleted, "the workers here"

    def _dead_growth(self, status: Status) -> int:
        """Count how many more dead letters there are than there were, and sort them by method when they grow."""
        dead = status.dead.total() if status.dead else 0
        if self._dead_at_first < 0:
            self._dead_at_first = self._dead_sorted = dead
        self._dead_at_first = min(self._dead_at_first, dead)
        if dead < self._dead_sorted:  # some were sent again or dropped: nobody knows which
            self._dead_by_method, self._dead_sorted = {}, dead
        now = self._looks[-1][0]
        if self._dead_sorted < dead <= WALK_MAX and now - self._walked_at >= MINUTE_SECONDS:
            self._walked_at, self._dead_sorted = now, dead
            self._dead_by_method = self._sorted_dead()
        return dead - self._dead_at_first

    def _sorted_dead(self) -> Mapping[str, int]:
        """Look at each, whatever queue it died on; whoever may not is shown their number only."""
        dead = self._queue.dead_letters(self._queue.values())
        if dead is None:
            return {}
        try:
            with Walk(dead) as walk:
                return Counter(method_of(letter) for letters in walk for letter in letters)
        except QueueError:
            return {}
