"""How long one call may hold who makes it: a web request must not hang on us; any thread."""

import os

from jobrunner.errors import SettingsError

#: All tries of one call together, unless JOBRUNNER_ENQUEUE_SECONDS says otherwise.
SECONDS, SECONDS_MAX = 5.0, 300
#: Of the budget: two tries fit that hang to their end. A name that takes long to resolve is beyond our reach.
CONNECT_SHARE, READ_SHARE = 0.1, 0.4
#: Of the budget: later than this no try may begin, so that it can hang to its end.
LAST_TRY_SHARE = 1 - CONNECT_SHARE - READ_SHARE


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
