"""One pass over a dead-letter queue, without keeping its messages from anybody; main thread.

Looking at a message of SQS means receiving it. So a walk hides what it has seen, but only until its
end, and never for longer than it takes to see all: one that is killed keeps nothing from anybody for long.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Self

from jobrunner.errors import QueueError
from jobrunner.operate.queues import DeadLetter, OperatedQueue
from jobrunner.queue.requests import tens
from jobrunner.settings import VISIBILITY_SECONDS_MAX

#: Every message must stay hidden until the last is seen; at the least this many are seen in a second.
HIDDEN_SECONDS, SEEN_PER_SECOND = 30, 50
#: SQS may call a queue empty that is not: said twice in a row, after waiting, it is believed.
EMPTY_MAX, WAIT_SECONDS = 2, 1
DELETE_TRIES = 3
CLOCK_SECONDS = 1


class Walk:
    """Iterates over batches of up to 10, each message once; leaving it shows what is left again."""

    def __init__(self, dead: OperatedQueue) -> None:
        self._dead = dead
        self._hidden_seconds = HIDDEN_SECONDS
        self._handles: dict[str, str] = {}
        self._deleted: set[str] = set()
        self._began_at = 0.0

    def __enter__(self) -> Self:
        """Look how many there are."""
        self._hidden_seconds = min(HIDDEN_SECONDS + self._dead.length() // SEEN_PER_SECOND, VISIBILITY_SECONDS_MAX)
        self._began_at = time.time() - self._dead.clock_skew_seconds
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Show what was hidden and not deleted; an error that keeps it hidden says for how long."""
        held = [(handle, 0) for message_id, handle in self._handles.items() if message_id not in self._deleted]
        hidden, gone = 0, False
        for batch in tens(held):
            try:
                hidden += len(batch if gone else self._dead.change_visibility(batch))
            except QueueError:  # they show themselves when their time is over, and one try says it for all
                gone = True
                hidden += len(batch)
        if hidden and isinstance(error, QueueError):
            error.args = (f"{error}. {hidden} of them stay hidden for up to {self._hidden_seconds} s",)

    def __iter__(self) -> Iterator[list[DeadLetter]]:
        """Give what there is, until there is no more or the first ones come again."""
        empty = 0
        while empty < EMPTY_MAX:
            batch = self._dead.receive(hidden_seconds=self._hidden_seconds, wait_seconds=WAIT_SECONDS)
            empty = 0 if batch else empty + 1
            fresh = [letter for letter in batch if letter.message_id not in self._handles]
            self._handles.update((letter.message_id, letter.receipt_handle) for letter in batch)
            if fresh:
                yield fresh
            elif batch:
                return

    def was_there(self, letter: DeadLetter) -> bool:
        """Tell whether it was sent before this walk began, by SQS's clock, which is told in whole seconds."""
        return letter.sent_at < self._began_at + CLOCK_SECONDS

    def delete(self, letters: Sequence[DeadLetter]) -> int:
        """Delete letters of a batch; returns how many would not go."""
        left = list(letters)
        for _ in range(DELETE_TRIES):
            if not left:
                break
            refused = self._dead.delete([letter.receipt_handle for letter in left])
            self._deleted.update(letter.message_id for index, letter in enumerate(left) if index not in refused)
            left = [left[index] for index in refused]
        return len(left)
