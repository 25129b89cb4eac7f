"""`jobrunner` and `python -m jobrunner`, which is also how our own processes start others of us; main thread."""

import _signal  # type: ignore[import-not-found]  # built in: `signal` itself takes its time
import os
import sys

IS_WORKER = sys.argv[1:2] == ["consume"]
#: These see to SIGINT themselves. Until then Python's own way is not sure: it cannot raise within a callback.
SEES_TO_SIGNALS = sys.argv[1:2] in (["consume"], ["dev"])


def _end(number: int, _frame: object) -> None:
    """End at once, before anything was begun; a worker that was told to stop has done so."""
    os._exit(0 if IS_WORKER else 128 + number)


# First of all: process 1 of a container ignores what it has no handler for. Each command may have its own later.
_signal.signal(_signal.SIGTERM, _end)
_signal.signal(_signal.SIGINT, _end)

from jobrunner.cli import main  # noqa: E402 - after the lines above


def run() -> None:
    """Run the command line."""
    if not SEES_TO_SIGNALS:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    main()


if __name__ == "__main__":
    run()
