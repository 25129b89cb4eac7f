"""What the main thread waits on: wishes to end the process, and to see what is going on; any thread asks."""

from contextlib import suppress
from queue import Empty, SimpleQueue

from jobrunner.errors import ExitCode

#: The main thread looks up this often: a signal that the kernel gives to another thread, as it does while
#: jobs start threads and programs, is handled by Python only when the main thread runs again.
LOOK_SECONDS = 0.25


class Inbox:
    """Wishes in their order: an exit code asks for the end, None for a look at every job and thread (SIGUSR1).

    Safe for a signal handler: a lock taken in one may be held by the very code that it interrupted.
    """

    def __init__(self) -> None:
        self._wishes: SimpleQueue[ExitCode | None] = SimpleQueue()
        self._is_stopping = False

    def ask(self, wish: ExitCode | None) -> None:
        """Put a wish in; never waits."""
        self._is_stopping = self._is_stopping or wish is not None
        self._wishes.put(wish)

    def is_stopping(self) -> bool:
        """Tell whether anybody has asked for the end."""
        return self._is_stopping

    def next(self) -> ExitCode | None:
        """Wait for the next wish."""
        while True:
            with suppress(Empty):
                return self.next_within(LOOK_SECONDS)

    def next_within(self, seconds: float) -> ExitCode | None:
        """Wait for the next wish; raises queue.Empty when there was none."""
        return self._wishes.get(timeout=seconds)
