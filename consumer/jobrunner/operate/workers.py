"""What the workers on this machine say of themselves, in their status files; main thread of a command.

`worker/health.py` writes them; here they are read, judged, and counted from one look to the next.
"""

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from jobrunner.errors import SettingsError

#: Written this often; older than three times that, the worker is dead, stuck or held.
WRITE_SECONDS = 5.0
STALE_SECONDS = 3 * WRITE_SECONDS
#: What reading a file that is no status file raises.
NOT_ONE = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The jobs of one method that a worker runs; `oldest_seconds` is the age of the oldest when that was written."""

    method: str
    count: int
    oldest_seconds: float

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read one, and nothing of it that a newer version may have added."""
        count, oldest = int(document["count"]), float(document["oldest_seconds"])
        return cls(method=str(document["method"]), count=count, oldest_seconds=oldest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process's state; `at` in epoch seconds, `deleted` counts the messages that it has deleted since its start."""

    pid: int
    at: float
    state: str
    in_hand: int
    queue_url: str = ""
    deleted: int = 0
    running: tuple[Running, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read one; raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            pid=int(document["pid"]),
            at=float(document["at"]),
            state=str(document["state"]),
            in_hand=int(document["in_hand"]),
            queue_url=str(document.get("queue_url", "")),
            deleted=int(document.get("deleted", 0)),
            running=tuple(Running.of(each) for each in document.get("running", ())),
        )

    def is_stale(self) -> bool:
        """Tell whether it should have written since."""
        return time.time() - self.at > STALE_SECONDS


def judge(path: Path) -> tuple[bool, str]:
    """Judge a worker by its file: healthy or not, and why in one line."""
    try:
        worker = _read(path)
    except OSError as error:
        return False, f"{path}: no status: {error.strerror}. Is `consume --status-file` running?"
    except NOT_ONE as error:
        return False, f"{path}: not a status file: {error!r}"
    age = time.time() - worker.at
    line = f"{path}: pid {worker.pid} {worker.state}, {worker.in_hand} in hand, {age:.0f} s ago"
    if worker.is_stale():
        return False, f"{line}: stuck or dead, since it writes every {WRITE_SECONDS:.0f} s"
    return True, line


def workers_in(paths: Iterable[Path]) -> list[Worker]:
    """Read status files, and all of a folder, but what is gone meanwhile; raises SettingsError for no folder."""
    found = []
    for path in _files(paths):
        try:
            found.append(_read(path))
        except (OSError, *NOT_ONE):
            continue  # a worker that stops takes its file away
    return found


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.parent.is_dir():
            raise SettingsError(f"--status-file {path}: its folder does not exist; name what consume was given")
        yield from sorted(path.glob("*.json")) if path.is_dir() else (path,)


def _read(path: Path) -> Worker:
    return Worker.of(json.loads(path.read_text()))


class Deletes:
    """How fast the workers of one queue delete, from one look to the next."""

    def __init__(self, *, within_seconds: float) -> None:
        self._within_seconds = within_seconds
        self._of_worker: dict[int, deque[tuple[float, int]]] = {}

    def per_second(self, workers: Iterable[Worker]) -> float | None:
        """Add what they say now; None while nobody has said it twice."""
        alive = [worker for worker in workers if not worker.is_stale()]
        rates = [rate for worker in alive if (rate := self._rate(worker)) is not None]
        return sum(rates) if rates else None

    def _rate(self, worker: Worker) -> float | None:
        said = self._of_worker.setdefault(worker.pid, deque())
        if said and worker.deleted < said[-1][1]:  # another worker of the same number: containers count from 1
            said.clear()
        if not said or said[-1][0] < worker.at:
            said.append((worker.at, worker.deleted))
        while said[-1][0] - said[0][0] > self._within_seconds:
            said.popleft()
        (since, before), (at, now) = said[0], said[-1]
        return (now - before) / (at - since) if at > since else None
