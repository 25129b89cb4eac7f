"""`jobrunner` and `python -m jobrunner`, which is also how our own processes start others of us; main thread."""

import _signal  # type: ignore[import-not-found]  # built in: `signal` itself takes its time

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Ctrl-C while all is imported is no error, and needs no traceback

from jobrunner.cli import main  # noqa: E402 - after the line above


def run() -> None:
    """Run the command line."""
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    main()


if __name__ == "__main__":
    run()
