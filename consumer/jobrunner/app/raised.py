"""What a job raised: as text, what it says of the next attempt, and let go; pure, whatever it does when asked."""

import traceback
from contextlib import suppress
from typing import Any

NOT_SAID = object()


def retry_wanted(error: BaseException) -> Any:
    """Ask an exception when its job should be tried again; whatever it does when it is asked."""
    try:
        return getattr(error, "retry_seconds", NOT_SAID)
    except BaseException:
        return NOT_SAID


def described(error: BaseException) -> str:
    """Give an exception as text, also one that cannot say what it is."""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except BaseException:
        place = ""
        with suppress(BaseException):
            place = "".join(traceback.format_tb(error.__traceback__))
        return f"{place}{type(error).__name__}, which raises when it is asked what it says"


def forget(error: BaseException | None) -> None:
    """Let go of an exception's traceback, and with it of the frames and all that the job's functions held.

    Exception, traceback and frames hang together in a circle, which only the collector's oldest and
    rarest run would find.
    """
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        left += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
