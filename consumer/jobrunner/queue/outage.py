"""Is SQS answering? One line when it stops, one when it is back, and the pace of trying; any thread."""

import random
import threading
import time
from collections.abc import Callable
from typing import Literal

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import LastingQueueError, OutageTooLong, QueueError

#: Tries during an outage: one soon, since most failures are a single one; then ever less often, but
#: still so that work goes on within seconds of the end. Shared by all that fail, so that an SQS that
#: is down sees less than a request a second.
PAUSES_SECONDS = (0.2, 1.0, 2.0, 3.0)
#: A refusal that time seldom mends (no such queue, no permission) ends the process after this long:
#: longer than SQS takes to let a deleted queue be made again (AWS: 60 s), and than a role takes to change.
LASTING_SECONDS_MAX = 90.0

Action = Literal["start", "receive", "delete", "change_visibility"]


class Outage:
    """The actions that fail now; those share one gate, and the others go on."""

    def __init__(self, *, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._failing: set[Action] = set()
        self._since = 0.0
        self._refused_since: float | None = None
        self._next_try = 0.0
        self._failures = 0

    def is_on(self) -> bool:
        """Tell whether any action fails now."""
        return bool(self._failing)

    def includes(self, action: Action) -> bool:
        """Tell whether this action failed the last time."""
        return action in self._failing

    def seconds_to_wait(self, action: Action) -> float:
        """Say how long this action must hold still; 0 means go, and takes the turn from the others."""
        with self._lock:
            if action not in self._failing:
                return 0.0
            left = self._next_try - self._clock()
            if left <= 0:
                self._next_try = self._clock() + self._pause()
            return max(0.0, left)

    def failed(self, action: Action, error: QueueError) -> None:
        """Count a failure; raises OutageTooLong when SQS has said no for too long to be waited out."""
        with self._lock:
            now = self._clock()
            if not self._failing:
                self._since, self._failures = now, 0
                self._log.warning("sqs.outage", action=action, error=str(error))
            elif action in self._failing:
                self._failures += 1
            self._failing.add(action)
            self._next_try = now + self._pause() * random.uniform(0.75, 1.0)
            if not isinstance(error, LastingQueueError):
                self._refused_since = None
            elif self._refused_since is None:  # not since the outage began: that may have been of another kind
                self._refused_since = now
            elif now - self._refused_since > LASTING_SECONDS_MAX:
                raise OutageTooLong(error)

    def succeeded(self, action: Action) -> None:
        """Note that the action works; the outage is over when the last of its actions does."""
        if action not in self._failing:
            return
        with self._lock:
            if action not in self._failing:  # another thread was first
                return
            self._failing.discard(action)
            self._refused_since = None
            self._next_try = 0.0  # the others may have their turn at once
            if not self._failing:
                self._log.info("sqs.recovered", action=action, outage_seconds=round(self._clock() - self._since, 1))

    def _pause(self) -> float:
        return PAUSES_SECONDS[min(self._failures, len(PAUSES_SECONDS) - 1)]
