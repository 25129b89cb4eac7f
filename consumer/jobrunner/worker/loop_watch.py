"""Watches the event loop, and names the job that holds it; on the keeper's thread."""

from structlog.typing import FilteringBoundLogger

from jobrunner.app.coroutines import Coroutines, stack_of_thread
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import State

#: Held for longer, it is said.
BLOCKED_SECONDS = 1.0


class LoopWatch:
    """Knows which job holds the event loop, and says so once when all others there wait for it."""

    def __init__(self, *, hand: Hand, coroutines: Coroutines, log: FilteringBoundLogger) -> None:
        self._hand = hand
        self._coroutines = coroutines
        self._log = log
        self._said = False
        self.holder: str | None = None

    def check(self) -> None:
        """Ask the loop for a sign of life, at each tick."""
        held_seconds = self._coroutines.held_seconds()
        if not held_seconds:
            self._said, self.holder = False, None
            return
        self.holder = self._coroutines.holder()
        if held_seconds >= BLOCKED_SECONDS and not self._said:
            self._said = True
            self._say(round(held_seconds, 1))

    def _say(self, held_seconds: float) -> None:
        on_loop = self._hand.all_in(State.AWAITING, State.RUNNING)
        lease = next((each for each in on_loop if each.delivery.message_id == self.holder), None)
        self._log.warning(
            "loop.blocked",
            **(lease.delivery.ids() if lease else {"message_id": self.holder}),
            held_seconds=held_seconds,
            stack=stack_of_thread(self._coroutines.thread_id),
            effect="every other `async def` job waits: await what this one waits for, or make it a plain def",
        )
