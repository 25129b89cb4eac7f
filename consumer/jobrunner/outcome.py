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
        return None if self.given_up or self.reason else self.release_seconds


DONE = Outcome("done")
#: A cron's message that came too late to be worth running: the one unrun message that is deleted.
EXPIRED = Outcome("expired")


def failed(name: str, attempt: int, attempts_max: int | None) -> Outcome:
    """Give a failure's outcome: exponential, jittered backoff; none where no attempt is left to wait for."""
    if _is_last(attempt, attempts_max):
        return Outcome(name, 0, given_up=True)
    return Outcome(name, _backoff(FAILURE_SECONDS, FAILURE_SECONDS_MAX, attempt))


def steered(name: str, attempt: int, attempts_max: int | None, retry_seconds: float | None) -> Outcome:
    """Give a failure's outcome as the job wants it: after so many seconds, or None for no other attempt."""
    plain = failed(name, attempt, attempts_max)
    if plain.given_up:
        return plain
    if retry_seconds is None:
        return Outcome(name, plain.release_seconds, reason="retry_seconds is None: no other attempt is wanted")
    return Outcome(name, math.ceil(min(max(retry_seconds, 0.0), RETRY_SECONDS_MAX)))


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
    # Beyond it the queue has other rules by now than when it was asked.
    return attempt == attempts_max


def _backoff(seconds: int, seconds_max: int, attempt: int) -> int:
    doubled = seconds << min(attempt - 1, 20)
    return round(min(doubled, seconds_max) * random.uniform(0.75, 1.0))
