"""One JSON object a line, one write a line; runs on whatever thread logs."""

import json
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from jobrunner import current
from jobrunner.telemetry.events import EVERYWHERE, FIELDS

#: A write of at most PIPE_BUF bytes reaches a pipe whole, whoever else writes to it (POSIX).
LINE_BYTES_MAX = 4_096
CUT = " ...[cut]... "
#: More members than this are cut off before the texts are looked at.
KEYS_MAX = 100
#: Whether our descriptor is still ours is looked at this often.
LOOK_SECONDS = 0.01
#: How long a line may wait for its reader.
WAIT_SECONDS = 0.5
#: Not `extra`: what every record has, and what other handlers leave on it.
OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime"}

#: What only a line itself says, not a job's context; and what is kept of one with too many members.
OF_THE_LINE = frozenset(EVERYWHERE)
OURS = OF_THE_LINE | FIELDS.keys()

Format = Literal["json", "console"]


def configure(*, log_format: Format, level: str) -> FilteringBoundLogger:
    """Send our lines, the app's structlog lines and its standard logging to stdout in one format.

    The descriptor is our own: a job that closes stdout silences itself, not us. Our logger keeps its
    own processors, so that an app which configures structlog for itself changes only its own lines.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    write = LineWriter(1)
    add_level, add_exception = structlog.processors.add_log_level, structlog.processors.format_exc_info
    shared: list[Processor] = [add_job, add_level, add_stamp, add_exception]
    render: Processor = render_json if log_format == "json" else structlog.dev.ConsoleRenderer(colors=wants_colors())
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: write,
        cache_logger_on_first_use=True,
    )
    handler = Handler(write)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[add_extra, structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=threshold, force=True)
    logging.getLogger("botocore").setLevel(max(threshold, logging.WARNING))  # it greets at each start
    return structlog.wrap_logger(  # type: ignore[no-any-return]
        write,
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=True,
    )


class Handler(logging.StreamHandler["LineWriter"]):
    """Brings the app's standard logging to our lines."""

    terminator = ""


def is_heard() -> bool:
    """Tell whether the app's standard logging still reaches us: a set-up of its own may have taken our handler away."""
    return any(isinstance(handler, Handler) for handler in logging.getLogger().handlers)


class LineWriter:
    """Writes each line with one system call; also stands in for the stream that `logging` wants.

    Nothing waits for a reader for long: once a line has waited for its time in vain, lines are dropped and
    counted until there is room again. A job must not fail because nobody reads its lines, nor hang.
    """

    def __init__(self, descriptor: int) -> None:
        self._lock = threading.Lock()
        self._dropped = 0
        self._looked_at = 0.0
        self._take(descriptor)

    def write(self, line: str) -> None:
        """Write one line, its newline added."""
        if self._dropped:
            self._say_dropped()
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._dropped or not self._is_written(data, WAIT_SECONDS):
            with self._lock:
                self._dropped += 1

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    debug = info = warning = warn = error = critical = exception = fatal = msg = log = write

    def _take(self, descriptor: int) -> None:
        """Get a descriptor of our own for the same file.

        A pipe is opened anew, since only then can our writes be such that never wait: the flag belongs
        to what was opened, and a copy would share it with the app's own stdout.
        """
        self._never_waits = False
        self._descriptor = -1
        with suppress(OSError):
            mode = os.fstat(descriptor).st_mode
            self._never_waits = stat.S_ISREG(mode)
            if stat.S_ISFIFO(mode):
                self._descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
                self._never_waits = True
        if self._descriptor < 0:
            with suppress(OSError):
                self._descriptor = os.dup(descriptor)
        self._file = _file_of(self._descriptor)

    def _is_written(self, data: bytes, wait_seconds: float) -> bool:
        """Write, waiting for room for a while; False if there was none. What has no reader any more counts as read."""
        if (now := time.monotonic()) > self._looked_at + LOOK_SECONDS:
            self._looked_at = now
            if self._file is None or _file_of(self._descriptor) != self._file:
                self._take(1)  # a job has closed every descriptor, and ours may be somebody else's by now
        if self._file is None:
            return True
        try:
            if self._never_waits:
                with suppress(BlockingIOError):
                    os.write(self._descriptor, data)
                    return True
            if not self._has_room(wait_seconds):
                return False
            os.write(self._descriptor, data)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _has_room(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def _say_dropped(self) -> None:
        with self._lock:
            said = add_stamp(None, "", {"level": "warning", "event": "log.dropped", "line_count": self._dropped})
            if self._dropped and self._is_written(render_json(None, "", said).encode() + b"\n", 0):
                self._dropped = 0


def _file_of(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def add_extra(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Put the `extra` of a standard line on it; what the line itself says wins."""
    extra = {key: value for key, value in vars(event["_record"]).items() if key not in OF_EVERY_RECORD}
    return {**extra, **event}


def add_job(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Put the running job's ids and context on the line; what the line itself says wins."""
    job = current.running.get()
    if job is None:
        return event
    context = job.context
    if not OF_THE_LINE.isdisjoint(context):
        context = {key: value for key, value in context.items() if key not in OF_THE_LINE}
    return {
        **context,
        "method": job.method,
        "message_id": job.message_id,
        "job_id": job.id,
        "attempt": job.attempt,
        **event,
    }


def add_stamp(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Stamp the line with UTC to the millisecond, and with the process."""
    event.setdefault("pid", os.getpid())  # what the line itself says wins
    event["timestamp"] = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")[:23] + "Z"
    return event


def render_json(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
    """Write an event as one line; the longest texts of one too long lose their middle, and say so."""
    event = {**{key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}, **event}
    if len(event) > KEYS_MAX:
        ours = {key: value for key, value in event.items() if key in OURS}
        event = {**dict(islice({**ours, **event}.items(), KEYS_MAX)), "keys_cut_count": len(event) - KEYS_MAX}
    line = _dumps(event)
    while len(line) >= LINE_BYTES_MAX:
        texts = {key: value if isinstance(value, str) else _dumps(value) for key, value in event.items()}
        longest = max(texts, key=lambda key: len(texts[key]))
        excess = len(line) - LINE_BYTES_MAX + len(CUT) + 1
        event = {**event, longest: cut(texts[longest], max(len(texts[longest]) - excess, len(texts[longest]) // 2))}
        shorter = _dumps(event)
        if len(shorter) >= len(line):
            said = {"of": str(event.get("event"))[:200], "key_count": len(event)}
            return _dumps(add_stamp(None, "", {"level": "warning", "event": "log.too_long", **said}))
        line = shorter
    return line


def cut(text: str, length: int) -> str:
    """Shorten a text to about `length` characters: its start and its end say most."""
    half = max((length - len(CUT)) // 2, 0)
    return text if len(text) <= length else f"{text[:half]}{CUT}{text[len(text) - half :]}"


def wants_colors() -> bool:
    """Tell whether a person with a colour terminal is reading (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _dumps(value: object) -> str:
    try:
        return ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError):  # odd keys, a structure that holds itself
        plain = value if isinstance(value, Mapping) else {"value": value}
        simple = {str(key): item if isinstance(item, str | int) else safe_repr(item) for key, item in plain.items()}
        return json.dumps(simple, separators=(",", ":"))


def safe_repr(value: object) -> str:
    """Give repr(), also of an object whose repr() raises."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__} whose repr() raises>"


#: Made once: `json.dumps` makes one for each line.
ENCODER = json.JSONEncoder(default=safe_repr, separators=(",", ":"))
