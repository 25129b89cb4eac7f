"""One JSON object a line, one write a line; runs on whatever thread logs."""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from jobrunner import current

#: A write of at most PIPE_BUF bytes reaches a pipe whole, whoever else writes to it (POSIX).
LINE_BYTES_MAX = 4_096
CUT = " ...[cut]... "
#: Not `extra`: what every record has, and what other handlers leave on it.
OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime"}

Format = Literal["json", "console"]


def configure(*, log_format: Format, level: str) -> FilteringBoundLogger:
    """Send our lines, the app's structlog lines and its standard logging to stdout in one format.

    The descriptor is a copy: a job that closes stdout silences itself, not us. Our logger keeps its
    own processors, so that an app which configures structlog for itself changes only its own lines.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    write = LineWriter(os.dup(1))
    add_level, add_exception = structlog.processors.add_log_level, structlog.processors.format_exc_info
    shared: list[Processor] = [add_job, add_level, add_time, add_exception]
    render: Processor = render_json if log_format == "json" else structlog.dev.ConsoleRenderer(colors=wants_colors())
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: write,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(write)
    handler.terminator = ""
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


class LineWriter:
    """Writes each line with one system call; also stands in for the stream that `logging` wants."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, line: str) -> None:
        """Write one line, its newline added; a job must not fail because nobody reads its lines."""
        with suppress(OSError):
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace") + b"\n")

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    debug = info = warning = warn = error = critical = exception = fatal = msg = log = write


def add_extra(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Put the `extra` of a standard line on it; what the line itself says wins."""
    extra = {key: value for key, value in vars(event["_record"]).items() if key not in OF_EVERY_RECORD}
    return {**extra, **event}


def add_job(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Put the running job's ids and context on the line; what the line itself says wins."""
    job = current.running.get()
    if job is None:
        return event
    return {
        **job.context,
        "method": job.method,
        "message_id": job.message_id,
        "job_id": job.id,
        "attempt": job.attempt,
        **event,
    }


def add_time(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Stamp the line with UTC to the millisecond."""
    event["timestamp"] = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")[:23] + "Z"
    return event


def render_json(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
    """Write an event as one line; the longest texts of one too long lose their middle, and say so."""
    event = {**{key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}, **event}
    line = _dumps(event)
    while len(line) >= LINE_BYTES_MAX:
        texts = {key: value if isinstance(value, str) else _dumps(value) for key, value in event.items()}
        longest = max(texts, key=lambda key: len(texts[key]))
        excess = len(line) - LINE_BYTES_MAX + len(CUT) + 1
        event = {**event, longest: cut(texts[longest], max(len(texts[longest]) - excess, len(texts[longest]) // 2))}
        shorter = _dumps(event)
        if len(shorter) >= len(line):
            return _dumps({"event": "log.too_long", "of": str(event.get("event"))[:200], "keys": len(event)})
        line = shorter
    return line


def cut(text: str, length: int) -> str:
    """Shorten a text to about `length` characters: its start and its end say most."""
    half = max((length - len(CUT)) // 2, 0)
    return text if len(text) <= length else f"{text[:half]}{CUT}{text[len(text) - half :]}"


def wants_colors() -> bool:
    """Tell whether a person with a colour terminal is reading (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _dumps(value: object) -> str:
    try:
        return json.dumps(value, default=safe_repr, separators=(",", ":"))
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
