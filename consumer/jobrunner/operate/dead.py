"""Dead letters: list them, find one, send them again, drop them; main thread."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from jobrunner.app.catalog import Catalog
from jobrunner.errors import BadParams, QueueError, SettingsError, UnknownMethod
from jobrunner.message import PLACEHOLDER, decode_or_none
from jobrunner.operate.queues import DeadLetter, OperatedQueue, operated, span, utc
from jobrunner.operate.walk import Walk
from jobrunner.queue.requests import batches

MOVE_LOOK_SECONDS = 0.5
#: For a body that does not even name a method.
NO_METHOD = "?"
IDS_SHOWN = 3

Chosen = Callable[[DeadLetter], bool]
#: Told how many more are done.
Progress = Callable[[int], None]


@dataclass(slots=True)
class Group:
    """Dead letters of one method and reason; `oldest` and `newest` are when they were first sent."""

    method: str
    reason: str
    ids: list[str] = field(default_factory=list)
    oldest: float = float("inf")
    newest: float = 0.0

    def document(self) -> dict[str, Any]:
        """Give it as JSON."""
        times = {"oldest": utc(self.oldest), "newest": utc(self.newest)}
        return {"method": self.method, "reason": self.reason, "count": len(self.ids), **times, "ids": self.ids}

    def lines(self) -> Iterator[str]:
        """Give it as text, with some of its ids."""
        now = time.time()
        ages = f"sent {span(now - self.newest)} to {span(now - self.oldest)} ago"
        yield f"{len(self.ids):>6}  {self.method}  {self.reason}  {ages}"
        more = f"  and {len(self.ids) - IDS_SHOWN} more" if len(self.ids) > IDS_SHOWN else ""
        yield f"        {'  '.join(self.ids[:IDS_SHOWN])}{more}"

    def add(self, letter: DeadLetter) -> None:
        """Count one."""
        self.ids.append(letter.message_id)
        self.oldest = min(self.oldest, letter.sent_at)
        self.newest = max(self.newest, letter.sent_at)


class DeadLetters:
    """The dead letters of one queue."""

    def __init__(self, *, queue: OperatedQueue, dead: OperatedQueue) -> None:
        self._queue = queue
        self._dead = dead

    def length(self) -> int:
        """Say about how many there are."""
        return self._dead.length()

    def groups(self, jobs: Catalog | None) -> list[Group]:
        """Group all by method and reason, the largest group first."""
        found: dict[tuple[str, str], Group] = {}
        for letter in self._letters():
            key = (method_of(letter), reason_of(letter, jobs))
            found.setdefault(key, Group(*key)).add(letter)
        return sorted(found.values(), key=lambda group: -len(group.ids))

    def find(self, wanted: str) -> DeadLetter | None:
        """Find one by its message id or its job's id."""
        letters = self._letters()
        found = next((letter for letter in letters if wanted in ids_of(letter)), None)
        letters.close()  # shows again what it hid
        return found

    def ids(self, chosen: Chosen) -> set[str]:
        """Give the message ids of the chosen ones."""
        return {letter.message_id for letter in self._letters() if chosen(letter)}

    def retry_all(self, progress: Progress) -> int:
        """Send all again, by SQS's own move task where it has one; returns how many.

        One by one first what must be changed for that: the move sends each as it is.
        """
        filled_in = self.retry(
            lambda letter: bool(letter.reason) or letter.wrapped or _lacks_its_time(letter), progress
        )
        return filled_in + self._move_all(progress)

    def _move_all(self, progress: Progress) -> int:
        before = self.length()
        if not self._start_move():
            return self.retry(lambda _: True, progress)
        moved, status, reason = self._dead.move_state(self._dead.arn)
        progress(moved)
        while status in ("RUNNING", "CANCELLING"):
            time.sleep(MOVE_LOOK_SECONDS)
            total, status, reason = self._dead.move_state(self._dead.arn)
            progress(total - moved)
            moved = total
        if status != "COMPLETED":
            raise QueueError(f"SQS's own move ended as {status} after {moved}: {reason}. Nothing is lost: retry again")
        if moved < before and self.length():  # it is over, and has not done it all
            return moved + self.retry(lambda _: True, progress)
        return moved

    def retry(self, chosen: Chosen, progress: Progress) -> int:
        """Send the chosen ones again; returns how many.

        Each is sent before it is deleted here: cut short, a message may be on both queues, never on neither.
        """
        done, stuck, refused = 0, 0, []
        with Walk(self._dead) as walk:
            for batch in walk:
                # Not what has been sent again and has died again meanwhile: that may never end.
                letters = [each for each in batch if self._is_ours(each) and chosen(each) and walk.was_there(each)]
                for part in batches([letter.size for letter in letters]):
                    sending = [_filled_in(letters[index]) for index in part]
                    refusals = self._queue.send(sending)
                    sent = [letter for index, letter in enumerate(sending) if index not in refusals]
                    stuck += walk.delete(sent)
                    done += len(sent)
                    refused += [f"{sending[index].message_id}: {each.message}" for index, each in refusals.items()]
                    progress(len(sent))
        if refused:
            raise QueueError(f"{done} were sent again; SQS refused {len(refused)}, which are still here: {refused[0]}")
        if stuck:
            raise QueueError(f"{done} were sent again; {stuck} of them could not be deleted here: drop those")
        return done

    def drop(self, chosen: Chosen, progress: Progress) -> int:
        """Delete the chosen ones for good; returns how many."""
        done = 0
        with Walk(self._dead) as walk:
            for batch in walk:
                letters = [letter for letter in batch if self._is_ours(letter) and chosen(letter)]
                dropped = len(letters) - walk.delete(letters)
                done += dropped
                progress(dropped)
        return done

    def _letters(self) -> Generator[DeadLetter]:
        with Walk(self._dead) as walk:
            for batch in walk:
                yield from (letter for letter in batch if self._is_ours(letter))

    def _is_ours(self, letter: DeadLetter) -> bool:
        """Tell whether it died on our queue: several queues may share their dead letters."""
        return not letter.source or letter.source == self._queue.name

    def _start_move(self) -> bool:
        """Start SQS's own move; False where there is none, it may not be asked, or it would move others' too."""
        try:
            if len(self._dead.sources()) > 1:
                return False
            self._dead.start_move(self._dead.arn, self._queue.arn)
        except QueueError as error:
            if "already a task" in str(error):
                raise
            return False
        return True


def _lacks_its_time(letter: DeadLetter) -> bool:
    return PLACEHOLDER in letter.body


def _filled_in(letter: DeadLetter) -> DeadLetter:
    """Give a tick that Scheduler gave up before it had filled in its time the time when it was given up."""
    if not _lacks_its_time(letter):
        return letter
    at = datetime.fromtimestamp(letter.sent_at, UTC)
    return replace(letter, body=letter.body.replace(PLACEHOLDER, f"{at:%Y-%m-%dT%H:%M:%SZ}"))


def of(queue_url: str) -> DeadLetters:
    """Open the dead letters of a queue; raises SettingsError if it has none."""
    queue = operated(queue_url)
    dead = queue.dead_letters(queue.values())
    if dead is None:
        raise SettingsError(f"{queue_url} has no dead-letter queue: jobrunner check says how to make one")
    return DeadLetters(queue=queue, dead=dead)


def reason_of(letter: DeadLetter, jobs: Catalog | None) -> str:
    """Judge why it died: SQS keeps no reason, and what today's code says of the message is the best there is.

    `jobs` is None where the app could not be loaded.
    """
    if letter.reason:
        return f"given up: {letter.reason}"
    call = decode_or_none(letter.body)
    if call is None:
        return "not_delivered" if _lacks_its_time(letter) else "malformed"
    if jobs is None:
        return "not known: the app does not load here"
    try:
        jobs.find(call.method).bind(call.params)
    except UnknownMethod:
        return "unknown_method"
    except BadParams:
        return "bad_params"
    return "failed"


def method_of(letter: DeadLetter) -> str:
    """Name the method of a message, whatever else is wrong with it."""
    call = decode_or_none(_filled_in(letter).body)
    return call.method if call else NO_METHOD


def ids_of(letter: DeadLetter) -> set[str | None]:
    """Give the ids that a person may know a message by: SQS's and its job's."""
    call = decode_or_none(_filled_in(letter).body)
    return {letter.message_id, call.id} if call else {letter.message_id}
