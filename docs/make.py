"""Writes what the pages have from the code, by `make pages`: the log's schema and table, pictures of a queue."""

import json
import re
import time
from pathlib import Path

from jobrunner.operate.queues import Figures
from jobrunner.operate.screen import frame
from jobrunner.operate.status import Counts, Status
from jobrunner.operate.watch import View
from jobrunner.operate.workers import Running, Worker
from jobrunner.telemetry import events

DOCS = Path(__file__).parent
SCHEMA, RUNNING = DOCS / "events.schema.json", DOCS / "running.md"
URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/shop-production-jobs"


def pages() -> dict[Path, str]:
    """Give each page as it should be."""
    running = RUNNING.read_text()
    for name, text in (("events", events.table()), ("healthy", healthy()), ("sick", sick())):
        pattern = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        running = pattern.sub(lambda _, text=text: f"{text}\n", running)
    return {SCHEMA: json.dumps(events.schema(), indent=1) + "\n", RUNNING: running}


def healthy() -> str:
    """Draw a queue that is drained as fast as it fills."""
    visible = [(n * 7) % 13 * 3 for n in range(48)]
    in_flight = [12 + (n * 5) % 4 for n in range(48)]
    running = Running(method="thumbnails.make", count=14, oldest_seconds=1.4)
    return _picture(visible, in_flight, oldest=3, sent=52.4, deleted=52.1, net=-0.3, running=(running,))


def sick() -> str:
    """Draw one that grows, since a job hangs on what it calls and others fail."""
    visible = [5 + n * n * 2841 // (47 * 47) for n in range(48)]
    in_flight = [min(16, 4 + n) for n in range(48)]
    slow = Running(method="invoices.send", count=15, oldest_seconds=1_900)
    quick = Running(method="thumbnails.make", count=1, oldest_seconds=0.6)
    dead = {"invoices.send": 23, "newsletter.write": 4}
    return _picture(visible, in_flight, oldest=312, sent=52.4, deleted=3.1, net=49.3, running=(slow, quick), dead=dead)


def _picture(
    visible: list[int],
    in_flight: list[int],
    *,
    oldest: float,
    sent: float,
    deleted: float,
    net: float,
    running: tuple[Running, ...],
    dead: dict[str, int] | None = None,
) -> str:
    died = sum((dead or {}).values())
    view = View(
        status=Status(
            queue=Counts(queue_url=URL, visible=visible[-1], in_flight=in_flight[-1], delayed=0),
            dead=Counts(queue_url=f"{URL}-dead", visible=died, in_flight=0, delayed=0),
            figures=Figures(oldest_seconds=oldest),
        ),
        visible=visible,
        in_flight=in_flight,
        sent=sent,
        deleted=deleted,
        net=net,
        source="CloudWatch",
        dead_growth=died,
        dead_by_method=dead or {},
    )
    worker = Worker(pid=17, at=time.time(), state="busy", in_hand=in_flight[-1], deleted=48_211, running=running)
    return "\n".join(["```text", *frame([view], [worker], width=80), "```"])


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
