"""How long one call may hold who makes it: a web request must not hang on us; any thread."""

import math
import os
import time

from jobrunner.errors import QueueError, SettingsError

#: All tries of one call together, from the first that failed, unless JOBRUNNER_ENQUEUE_SECONDS says otherwise.
SECONDS, SECONDS_MAX = 5.0, 300
#: Of the budget: two tries fit that hang to their end. A name that takes long to resolve is beyond our reach.
CONNECT_SHARE, READ_SHARE = 0.1, 0.4
#: Of the budget: later than this no try may begin, so that it can hang to its end.
LAST_TRY_SHARE = 1 - CONNECT_SHARE - READ_SHARE


class Patience:
    """One call's, which all its requests share: many that go well may take longer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at = math.inf
        self.error: QueueError | None = None

    def failed(self, error: QueueError, *, began_at: float) -> None:
        """Note a request that was not answered, or not as it should."""
        self.error = error
        self._ends_at = min(self._ends_at, began_at + self._seconds * LAST_TRY_SHARE)

    def is_over(self) -> bool:
        """Tell whether no request may begin any more."""
        return time.monotonic() > self._ends_at


def told() -> float:
    """Give the budget in seconds; raises SettingsError."""
    given = os.environ.get("JOBRUNNER_ENQUEUE_SECONDS", "")
    try:
        seconds = float(given or SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= SECONDS_MAX:
        raise SettingsError(f"JOBRUNNER_ENQUEUE_SECONDS is {given!r}, not a number up to {SECONDS_MAX}")
    return seconds
