"""How a delivery ended, and when its message may be seen again; pure rules, no thread."""

import math
import random
from dataclasses import dataclass

#: A failure waits about 5 s, then twice as long each time, up to 15 min.
FAILURE_SECONDS, FAILURE_SECONDS_MAX = 5, 900
#: A method nobody knows yet is often a deploy under way: minutes, not seconds.
UNKNOWN_SECONDS, UNKNOWN_SECONDS_MAX = 30, 300
HAND_BACK_SECONDS_MAX = 60
#: AWS: no message is hidden for longer than 12 hours.
RETRY_SECONDS_MAX = 43_200


@dataclass(frozen=True, slots=True)
class Outcome:
    """The word for the log, and what happens to the message: deleted, or visible again after a while."""

    name: str
    release_seconds: int | None = None
    #: No attempt is left: SQS moves the message to the dead letters when it would be received again.
    given_up: bool = False
    #: Why the job wants no other attempt, though there are some: it goes to the dead letters from here.
    reason: str = ""

    @property
    def deletes(self) -> bool:
        """Whether the message has done its work."""
        return self.release_seconds is None

    @property
    def retry_seconds(self) -> int | None:
        """When the next attempt may start; None if there is none."""
        return None if self.given_up else self.release_seconds


DONE = Outcome("done")
#: A cron's message that came too late to be worth running: the one unrun message that is deleted.
EXPIRED = Outcome("expired")


def failed(name: str, attempt: int, attempts_max: int | None) -> Outcome:
    """Give a failure's outcome: exponential, jittered backoff; none where no attempt is left to wait for."""
    if _is_last(attempt, attempts_max):
        return Outcome(name, 0, given_up=True)
    return Outcome(name, _backoff(FAILURE_SECONDS, FAILURE_SECONDS_MAX, attempt))


def steered(name: str, attempt: int, attempts_max: int | None, error: BaseException) -> Outcome:
    """Give a failure's outcome as its exception's attribute `retry_seconds` asks for it.

    A number: the backoff, 0 to 43,200. None: no other attempt. Absent, or anything else: as for any failure.
    """
    plain = failed(name, attempt, attempts_max)
    # Looked up where nothing of the app's runs: an exception may do anything when it is asked.
    places = [getattr(error, "__dict__", {}), *map(vars, type(error).__mro__)]
    asked = next((place["retry_seconds"] for place in places if "retry_seconds" in place), plain)
    if plain.given_up or asked is plain:
        return plain
    if asked is None:
        return Outcome(name, plain.release_seconds, reason=f"{type(error).__name__} says retry_seconds = None")
    if isinstance(asked, int | float) and not isinstance(asked, bool) and 0 <= asked <= RETRY_SECONDS_MAX:
        return Outcome(name, math.ceil(asked))
    return plain


def unknown_method(attempt: int, attempts_max: int | None) -> Outcome:
    """Give the outcome of a call whose method is not here, or not yet."""
    if _is_last(attempt, attempts_max):
        return Outcome("unknown_method", 0, given_up=True)
    return Outcome("unknown_method", _backoff(UNKNOWN_SECONDS, UNKNOWN_SECONDS_MAX, attempt))


def handed_back(attempt: int) -> Outcome:
    """Give the outcome of a delivery that this process did not finish.

    A first attempt goes back at once. Later ones wait some seconds at random, more with each attempt:
    a rolling restart would otherwise hunt one long job through every worker, an attempt each.
    """
    return Outcome("handed_back", round(random.uniform(0, min(4 * max(attempt - 1, 0), HAND_BACK_SECONDS_MAX))))


def _is_last(attempt: int, attempts_max: int | None) -> bool:
    return attempts_max is not None and attempt >= attempts_max


def _backoff(seconds: int, seconds_max: int, attempt: int) -> int:
    doubled = seconds << min(attempt - 1, 20)
    return round(min(doubled, seconds_max) * random.uniform(0.75, 1.0))
