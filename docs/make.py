"""Writes what the pages have from the code, by `make pages`: the log's schema, and its table in running.md."""

import json
import re
from pathlib import Path

from jobrunner.telemetry import events

DOCS = Path(__file__).parent
SCHEMA = DOCS / "events.schema.json"
TABLE = re.compile(r"(?<=<!-- events -->\n).*?(?=\n<!-- /events -->)", re.DOTALL)


def pages() -> dict[Path, str]:
    """Give each page as it should be."""
    running = DOCS / "running.md"
    return {
        SCHEMA: json.dumps(events.schema(), indent=1) + "\n",
        running: TABLE.sub(lambda _: events.table(), running.read_text()),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
