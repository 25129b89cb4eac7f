"""How gunicorn runs here: ports, times, and its lines as JSON, in the worker's own format."""

import io
import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime

bind = f"0.0.0.0:{os.environ.get('PORT', '8000')}"
workers, threads = 2, 4
#: What requests under way may take at a stop; deploy/start.py works it out.
graceful_timeout = int(os.environ.get("WEB_STOP_SECONDS", "30"))
#: Development: start again when code changes.
reload = bool(os.environ.get("WEB_RELOAD"))
#: Its heartbeat files, where a read-only container can write.
worker_tmp_dir = os.environ.get("RUN_DIR", "/tmp")
#: Its socket for gunicornc, which a read-only container has no place for.
control_socket_disable = True
#: What a pipe takes whole, whoever else writes to it (POSIX: PIPE_BUF).
LINE_BYTES_MAX = 4_096
CUT = " ...[cut]... "


class Json(logging.Formatter):
    """One object a line, tracebacks in it: whoever reads the container's stdout meets one format."""

    def format(self, record):
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:23] + "Z"
        line = {"timestamp": at, "level": record.levelname.lower(), "event": record.getMessage(), "logger": record.name}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        for key in ("exception", "event"):  # the longest lose their middle: start and end say most
            excess = len(json.dumps(line)) + 1 - LINE_BYTES_MAX
            if excess > 0 and key in line:
                half = max(len(line[key]) - excess - len(CUT), 0) // 2
                line[key] = line[key][:half] + CUT + line[key][len(line[key]) - half :]
        return json.dumps(line)


class Lines(io.TextIOBase):
    """Takes the place of stderr: what a thread prints there becomes lines of the log."""

    def __init__(self):
        super().__init__()
        self.of_thread = threading.local()

    def write(self, text):
        """Log what is whole. A log that fails prints to stderr, which is here."""
        mine = vars(self.of_thread)
        *whole, mine["rest"] = (mine.get("rest", "") + text).split("\n")
        if not mine.get("is_writing"):
            mine["is_writing"] = True
            for line in filter(str.strip, whole):
                logging.getLogger("stderr").warning("%s", line)
            mine["is_writing"] = False
        return len(text)


def on_starting(_server):
    """Let gunicorn's own end, a web app that cannot be imported, its warnings and its `wsgi.errors` speak JSON too."""
    sys.stderr = Lines()
    logging.captureWarnings(capture=True)


logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": Json}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {
        # With a handler of its own: uvicorn's worker class copies it for its own lines.
        "gunicorn.error": {"propagate": False, "handlers": ["stdout"]},
        "gunicorn.access": {"propagate": False},
        "botocore": {"level": "WARNING"},
    },
}
