"""What happened in the last minute, as lines that CloudWatch Logs makes metrics of; any thread counts.

The embedded metric format (AWS: "CloudWatch Embedded Metric Format Specification"): one JSON object a
line, its metrics and dimensions named under `_aws`. Every combination of dimensions is billed as a
metric of its own, so there are two: the queue, and the queue with one of a fixed set of methods.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from jobrunner.settings import Settings
from jobrunner.telemetry.logs import LINE_BYTES_MAX, LineWriter

INTERVAL_SECONDS = 60.0
NAMESPACE = "jobrunner"
#: AWS: values of one metric in one line. Of more jobs than that, a fair sample stands for all.
SAMPLE_MAX = 100
METHODS_MAX, OTHER, TOTALS = 50, "other", ""
#: AWS: a dimension's value has at most 1,024 characters; ours must fit into a line with the rest.
DIMENSION_LENGTH_MAX = 250
Values = Mapping[str, int | list[float] | list[int]]
UNITS = {"Duration": "Milliseconds", "QueueLatency": "Milliseconds"}


@dataclass(slots=True)
class Tally:
    """One method's interval: how often each outcome came, and samples of its times in milliseconds."""

    outcomes: Counter[str] = field(default_factory=Counter)
    timed: int = 0
    durations: list[float] = field(default_factory=list)
    latencies: list[int] = field(default_factory=list)

    def time(self, duration_ms: float, queue_ms: int) -> None:
        """Keep the times, or let them take the place of others: each job has the same chance to be kept."""
        self.timed += 1
        if len(self.durations) < SAMPLE_MAX:
            self.durations.append(duration_ms)
            self.latencies.append(queue_ms)
        elif (place := random.randrange(self.timed)) < SAMPLE_MAX:
            self.durations[place], self.latencies[place] = duration_ms, queue_ms


class Metrics:
    """Counts; `tick` writes once an interval, on the reporter's thread, `flush` at once."""

    def __init__(
        self,
        *,
        queue_name: str,
        methods: Iterable[str],
        in_flight: Callable[[], int],
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue_name = _dimension(queue_name)
        # Fixed at the start: what is counted by name must not depend on what happened to come first.
        self._methods = frozenset(sorted(methods)[:METHODS_MAX])
        self._in_flight = in_flight
        self._write = write
        self._clock = clock
        self._lock = Lock()
        self._tallies: dict[str, Tally] = {}
        self._events: Counter[str] = Counter()
        self._next = clock() + INTERVAL_SECONDS

    @classmethod
    def of(cls, settings: Settings, *, methods: Iterable[str], in_flight: Callable[[], int]) -> "Metrics":
        """Make those that a worker was told to write, or none; with "emf-totals" no method has its own."""
        write = _discard if settings.metrics == "off" else LineWriter(1).write
        named = methods if settings.metrics == "emf" else ()
        name = settings.queue_url.rpartition("/")[2]
        return cls(queue_name=name, methods=named, in_flight=in_flight, write=write)

    def job(self, outcome: str, *, method: str, times_ms: tuple[float, int] | None = None) -> None:
        """Count a job's outcome; its times are those of the run and of the wait on the queue."""
        with self._lock:
            if method not in self._methods:
                method = OTHER if self._methods else TOTALS
            tally = self._tallies.setdefault(method, Tally())
            tally.outcomes[_name(outcome)] += 1
            if times_ms:
                tally.time(*times_ms)

    def event(self, name: str) -> None:
        """Count what is no single method's: a lost lease, a failed receive, a delivery handed back."""
        with self._lock:
            self._events[_name(name)] += 1

    def tick(self) -> None:
        """Write if it is time to."""
        if self._clock() >= self._next:
            self._next = self._clock() + INTERVAL_SECONDS
            self.flush(InFlight=self._in_flight())

    def flush(self, **more: int) -> None:
        """Write what was counted since the last time, and more."""
        with self._lock:
            tallies, self._tallies = self._tallies, {}
            events, self._events = self._events, Counter()
        counts = {**events, **more}
        if counts:
            self._write(_line({"Queue": self._queue_name}, counts))
        for method, tally in tallies.items():
            values: Values = {**tally.outcomes, "Duration": tally.durations, "QueueLatency": tally.latencies}
            named = {} if method == TOTALS else {"Method": _dimension(method)}
            self._write(_line({"Queue": self._queue_name, **named}, values))


def _discard(_line: str) -> None:
    """Stand in for a writer where nobody wants the lines."""


def _line(dimensions: Mapping[str, str], values: Values) -> str:
    """Write one line; a smaller sample stands for one that does not fit."""
    given = {name: value for name, value in values.items() if value != []}
    keys = list(dimensions)
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [keys[:length] for length in range(1, len(keys) + 1)],
        "Metrics": [{"Name": name, "Unit": UNITS.get(name, "Count")} for name in given],
    }
    head = {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}, **dimensions}
    line = json.dumps({**head, **given}, separators=(",", ":"))
    if len(line) < LINE_BYTES_MAX:
        return line
    return _line(dimensions, {k: v[: len(v) // 2] if isinstance(v, list) else v for k, v in given.items()})


def _name(word: str) -> str:
    """Turn an outcome's name into a metric's: handed_back, HandedBack."""
    return word.title().replace("_", "")


def _dimension(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:DIMENSION_LENGTH_MAX]
