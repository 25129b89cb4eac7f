"""Crons: what the commands call; main thread. Each line of output is made here, each act elsewhere."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jobrunner.app.loading import load_app
from jobrunner.crons import file, ticker
from jobrunner.crons.expression import Rate
from jobrunner.crons.file import Cron
from jobrunner.crons.later_ticker import LaterTicker
from jobrunner.crons.words import explain
from jobrunner.errors import ScheduleError
from jobrunner.message import encode
from jobrunner.queue import schedules
from jobrunner.sending import producer
from jobrunner.settings import check_queue_url

if TYPE_CHECKING:
    from jobrunner.crons.scheduler import Change, Scheduler

NEXT_IN_LIST = 3
#: Of a request to Scheduler: nobody's web request waits for it.
READ_SECONDS, TRIES = 30.0, 6
SIGNS = {"create": "+", "update": "~", "delete": "-", "extra": "?", "past": "="}
LEFT_ALONE = ("extra", "past")
REMARKS = {"extra": " (not in the file; --prune deletes it)", "past": " (past, skipped)"}


def load(*, path: Path | None, module: str, app_dir: Path, django: str | None = None) -> list[Cron]:
    """Load the app and its schedule file; raises what either is wrong with."""
    jobs = load_app(app_dir=app_dir, module=module, django=django)
    return file.load(path or file.beside(module, app_dir), jobs)


def select(crons: Sequence[Cron], names: Sequence[str]) -> list[Cron]:
    """Pick crons by name, or all; raises ScheduleError for a name that is not there."""
    known = {cron.name: cron for cron in crons}
    for name in names:
        if name not in known:
            raise ScheduleError(f"no cron {name!r} in the file; it has {', '.join(known) or 'none'}")
    return [known[name] for name in names] if names else list(crons)


def describe(crons: Iterable[Cron]) -> Iterator[str]:
    """Show what, when, in words, the next times, and what looks wrong."""
    now = datetime.now(UTC)
    for cron in crons:
        state = "" if cron.enabled else "  (disabled)"
        yield f"{cron.name}: {cron.method}{state}"
        yield f"  {cron.schedule.text}: {explain(cron.schedule)}"
        times = [_time(cron, fire) for fire in cron.next(now, NEXT_IN_LIST)]
        if isinstance(cron.schedule, Rate) and cron.enabled:
            yield "  counted from the schedule's creation, when it first fires"
        elif times:
            yield f"  next: {'; '.join(times)}"
        elif cron.enabled:
            yield "  warning: it never fires (again)"
        yield from (f"  {line}" for line in warnings([cron]))


def warnings(crons: Iterable[Cron]) -> Iterator[str]:
    """Say which ticks a worker may drop although nothing was late."""
    for cron in crons:
        if cron.drops_healthy_ticks():
            good = f"make max_age_seconds {file.AGE_SECONDS_GOOD} or more"
            yield f"warning: a tick of {cron.name} may come a minute late: {good}"


def next_lines(crons: Iterable[Cron], count: int) -> Iterator[str]:
    """Show a line per fire."""
    now = datetime.now(UTC)
    fires = [(fire, cron) for cron in crons for fire in cron.next(now, count)]
    for fire, cron in sorted(fires, key=lambda pair: pair[0]):
        yield f"{fire:%Y-%m-%dT%H:%MZ}  {_time(cron, fire)}  {cron.name}"


def plan_lines(changes: Iterable["Change"]) -> Iterator[str]:
    """Show a diff that a person can read."""
    for change in changes:
        yield f"{SIGNS[change.kind]} {change.name}{REMARKS.get(change.kind, '')}"
        yield from (f"    {line}" for line in change.lines)


def reconciler(
    *, app: str, environment: str, queue_url: str, role_arn: str, dead_letter_arn: str | None
) -> "Scheduler":
    """Make the reconciler for an app's environment."""
    from jobrunner.crons.scheduler import Place, Scheduler
    from jobrunner.queue.endpoint import Endpoint

    check_queue_url(queue_url)
    endpoint = Endpoint(queue_url)
    client = endpoint.scheduler(read_seconds=READ_SECONDS, attempts=TRIES)
    place = Place(
        app=app,
        environment=environment,
        queue_arn=endpoint.arn(),
        role_arn=role_arn,
        dead_letter_arn=dead_letter_arn,
    )
    return Scheduler(place=place, client=client)


def run(crons: Sequence[Cron], *, name: str | None, queue_url: str) -> None:
    """Fire one cron now, or all of them on time until a signal."""

    def fire(cron: Cron, at: datetime) -> None:
        scheduled_at = f"{at:%Y-%m-%dT%H:%M:%SZ}"
        producer.send_body(encode(cron.call(scheduled_at)), queue_url=queue_url)
        print(f"{datetime.now(UTC):%H:%M:%S} fired {cron.name} of {scheduled_at}", flush=True)

    if name:
        fire(select(crons, [name])[0], datetime.now(UTC))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # process 1 of a container has no default action
    fires_later = _fire_jobs_for_later(queue_url)
    enabled = [cron.name for cron in crons if cron.enabled]
    print(f"firing {', '.join(enabled)} from this process; in AWS that is EventBridge's work", flush=True)
    ticker.run(crons, fire)
    if fires_later:
        threading.Event().wait()  # for a signal: no cron is left, and jobs for later may still come


def _fire_jobs_for_later(queue_url: str) -> bool:
    """Fire what an emulator of Scheduler keeps, where variables name one; True if so."""
    if not (os.environ.get("JOBRUNNER_LATER_GROUP") and os.environ.get("AWS_ENDPOINT_URL_SCHEDULER")):
        return False
    place = schedules.Place.told(os.environ)
    kept = schedules.Schedules(place=place, queue_url=queue_url, read_seconds=READ_SECONDS)
    kept.make_group()
    LaterTicker(schedules=kept, queue_urls=[queue_url]).start()
    return True


def _time(cron: Cron, fire: datetime) -> str:
    return f"{fire.astimezone(cron.schedule.zone):%a %Y-%m-%d %H:%M %Z}"
