"""Proves that a worker could work: settings, app, crons, queue, permissions, clock, supervisord; main thread."""

import configparser
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobrunner.app.catalog import Catalog
from jobrunner.app.loading import load_app, load_around
from jobrunner.crons import file
from jobrunner.errors import AccessDenied, JobrunnerError, NoSuchModule, QueueError, QueueNotFound, SettingsError
from jobrunner.operate import rules
from jobrunner.operate.queues import OperatedQueue, operated
from jobrunner.operate.rules import Finding
from jobrunner.queue.endpoint import aws, locate
from jobrunner.queue.requests import QueueAttributes
from jobrunner.queue.schedules import Place, Schedules
from jobrunner.settings import Settings

#: AWS refuses requests whose time is more than 5 minutes off.
SKEW_SECONDS_MAX, SKEW_SECONDS_GOOD = 300, 30
#: Where a supervisord.conf is looked for, under the app's directory and in the system's places.
SUPERVISORD_PLACES = (
    "supervisord.conf",
    "deploy/supervisord.conf",
    "/etc/supervisord.conf",
    "/etc/supervisor/supervisord.conf",
)
READ_SECONDS = 5.0
#: Our stop takes under 3 s; supervisord kills what takes longer than its own time.
STOP_SECONDS = 4


def run(options: Mapping[str, Any], crons_path: Path | None) -> Iterator[Finding]:
    """Look at everything that `consume` with these options would need."""
    try:
        Settings(**options)
    except SettingsError as error:
        yield Finding("error", "settings", str(error), "consume would not start", "jobrunner consume --help")
    else:
        yield Finding("ok", "settings", "consume would take them")
        yield from _status_file(options["status_file"])
    # The queue first: what botocore imports late must be there before the app's files come first.
    yield from _queue(options)
    yield from _app(options, crons_path)
    yield from _supervisord(options["app_dir"])


def _status_file(path: Path | None) -> Iterator[Finding]:
    folder = path.absolute().parent if path else None
    if folder and not os.access(folder, os.W_OK):
        why = "consume would go on without it, and `jobrunner health` would call the worker dead"
        cure = f"let the user that runs consume write to {folder}, or name another --status-file, such as under /tmp"
        yield Finding("error", "status file", f"{folder} cannot be written", why, cure)


def _queue(options: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        queue = operated(options["queue_url"])
    except SettingsError as error:
        if options["queue_url"]:  # else the settings have said so
            yield Finding("error", "queue", str(error), "consume would not start", "jobrunner check --queue-url URL")
        return
    try:
        values = queue.values()
    except QueueError as error:
        # AWS calls a clock that is off a wrong signature: its answer shows the time all the same.
        off = abs(queue.clock_skew_seconds) > SKEW_SECONDS_MAX
        yield _clock(queue) if off else _unreachable(error, queue.url)
        if isinstance(error, AccessDenied) and not off:
            yield from _permissions(queue)
        return
    yield Finding("ok", "queue", queue.url)
    yield _clock(queue)
    try:
        visibility_seconds = options["visibility_timeout_seconds"] or QueueAttributes(values).visibility_timeout_seconds
    except SettingsError as error:
        yield Finding("error", "queue", str(error), "consume would not start", "pass --visibility-timeout")
        return
    yield from rules.of_queue(
        values,
        queue_url=queue.url,
        visibility_seconds=visibility_seconds,
        job_timeout_seconds=options["job_timeout_seconds"],
    )
    yield from _dead_letters(queue, values)
    yield rules.of_oldest(queue.oldest_seconds())
    yield from _permissions(queue)
    yield from _later(queue.url)


def _unreachable(error: QueueError, queue_url: str) -> Finding:
    if isinstance(error, QueueNotFound):
        cure = f"{aws(queue_url)} sqs list-queues prints those that are there"
        return Finding("error", "queue", str(error), "nothing can be received", cure)
    if isinstance(error, AccessDenied):
        cure = "attach the worker's policy of deploy/aws/jobrunner.yaml to the role: sqs:GetQueueAttributes was refused"
        return Finding("error", "queue", str(error), "without it consume does not start", cure)
    cure = (
        f"from this machine: curl -sS {locate(queue_url, os.environ)[1] or queue_url} must answer anything at all; "
        "else look at routes, DNS and endpoints"
    )
    return Finding("error", "queue", str(error), "consume would wait for it", cure)


def _clock(queue: OperatedQueue) -> Finding:
    skew = queue.clock_skew_seconds
    if abs(skew) <= SKEW_SECONDS_GOOD:
        return Finding("ok", "clock", f"{skew:+.0f} s from SQS's")
    level: rules.Level = "error" if abs(skew) > SKEW_SECONDS_MAX else "warn"
    return Finding(
        level,
        "clock",
        f"{skew:+.0f} s from SQS's",
        "AWS refuses requests 5 minutes off",
        "start chronyd or ntpd on the host",
    )


def _dead_letters(queue: OperatedQueue, values: Mapping[str, str]) -> Iterator[Finding]:
    dead = queue.dead_letters(values)
    if dead is None:
        return  # said by the rules
    try:
        dead_values = dead.values()
    except QueueNotFound as error:
        why = "SQS drops the redrive: a job that fails for ever is tried until its message expires"
        yield Finding("error", "dead-letter queue", str(error), why, rules.create_dead(queue.url, dead.name))
    except QueueError as error:
        why = "its retention and its count were not looked at"
        yield Finding("warn", "dead-letter queue", str(error), why, f"allow sqs:GetQueueAttributes on {dead.name}")
    else:
        yield Finding("ok", "dead-letter queue", dead.url)
        yield from rules.of_dead_letters(values, dead_values, dead_url=dead.url, queue_url=queue.url)
        if (sends := dead.may_send()).verdict == "refused":
            why = "a job that wants no other attempt (retry_seconds = None) would be tried again all the same"
            cure = f"allow sqs:SendMessage on {dead.name}, as the worker's policy of deploy/aws/jobrunner.yaml does"
            yield Finding("warn", "dead-letter queue", sends.refusal, why, cure)


def _permissions(queue: OperatedQueue) -> Iterator[Finding]:
    tried = list(queue.permissions())
    for each in tried:
        if each.verdict == "refused":
            sends = each.action == "sqs:SendMessage"
            why = "what runs here cannot enqueue; a pure worker need not" if sends else "consume needs it"
            statement = f'{{"Effect": "Allow", "Action": "{each.action}", "Resource": "{queue.arn}"}}'
            cure = f"add {statement} to the role's policy"
            yield Finding("warn" if sends else "error", "permission", each.refusal, why, cure)
    words = [f"{each.action} {each.verdict}" for each in tried if each.verdict != "refused"]
    yield Finding("ok", "permissions", ", ".join([*words, "sqs:ReceiveMessage not tried: it would spend an attempt"]))


def _app(options: Mapping[str, Any], crons_path: Path | None) -> Iterator[Finding]:
    module = options["module"]
    try:
        jobs = load_app(app_dir=options["app_dir"], module=module, django=options["django"])
    except NoSuchModule as error:
        cure = f"find it: find . -name '{module.rpartition('.')[2]}*' -not -path '*/.*'; its folder is the --app-dir"
        yield Finding("error", "module", str(error), "consume would not start", cure)
        return
    except JobrunnerError as error:
        cure = f"change what the last lines name until `jobrunner methods --module {module}` lists the jobs"
        yield Finding("error", "module", str(error), "consume would not start", cure)
        return
    yield rules.of_methods(module, len(jobs.jobs))
    yield from _tried(
        "around",
        options["around"],
        lambda: load_around(options["around"], django=options["django"]),
        "jobrunner consume --around MODULE:CALLABLE, such as web.app:app.app_context",
    )
    yield from _crons(crons_path or file.beside(module, options["app_dir"]), jobs)


def _crons(path: Path, jobs: Catalog) -> Iterator[Finding]:
    if path.name == file.FILE and not path.exists():
        yield Finding("ok", "crons", f"no {path}")
        return
    try:
        crons = file.load(path, jobs)
    except JobrunnerError as error:
        yield Finding("error", "crons", str(error), "crons apply would refuse the file", "mend the line named")
        return
    yield Finding("ok", "crons", f"{len(crons)}, {sum(cron.enabled for cron in crons)} of them enabled")
    now = datetime.now(UTC)
    for cron in crons:
        if cron.drops_healthy_ticks():
            why = "Scheduler fires anywhere within the minute that is due: healthy ticks would be dropped"
            cure = f"max_age_seconds = {file.AGE_SECONDS_GOOD} or more under [{cron.name}]"
            yield Finding("warn", "crons", f"{cron.name}: max_age_seconds = {cron.max_age_seconds}", why, cure)
        if cron.enabled and not cron.next(now, 1):
            cure = f"change its schedule, or say enabled = false under [{cron.name}]"
            yield Finding("warn", "crons", f"{cron.name}: {cron.schedule.text}", "it never fires (again)", cure)


def _later(queue_url: str) -> Iterator[Finding]:
    """Judge where jobs for later than 15 minutes would lie, if the variables say so."""
    if not os.environ.get("JOBRUNNER_LATER_GROUP"):
        return
    try:
        place = Place.told(os.environ)
        schedules = Schedules(place=place, queue_url=queue_url, read_seconds=READ_SECONDS, attempts=2)
        none = f"jobrunner-check-{uuid.uuid4()}"
        schedules.get(none)
        schedules.delete(none)
    except JobrunnerError as error:
        cure = "attach the web's policy of deploy/aws/jobrunner.yaml, and set the variables that docs/later.md names"
        yield Finding("warn", "later", str(error), "enqueue(..., at=) would fail for more than 15 minutes", cure)
        return
    if place.dead_letter_arn:
        tried = "looking and taking away are allowed; making one was not tried: it would be one"
        yield Finding("ok", "later", f"{place.group}: {tried}")
    else:
        why = "what Scheduler cannot send after a day is lost"
        yield Finding(
            "warn", "later", f"{place.group}, without dead letters", why, "set JOBRUNNER_LATER_DEAD_LETTER_ARN"
        )


def _supervisord(app_dir: Path) -> Iterator[Finding]:
    """Judge the programs that run us, in the first supervisord.conf that is found."""
    path = next((found for place in SUPERVISORD_PLACES if (found := app_dir / place).is_file()), None)
    if path is None:
        return
    try:
        parser = _parsed(path)
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        yield Finding("warn", str(path), str(error), "supervisord would not start", f"supervisord -n -c {path}")
        return
    for name in parser.sections():
        section = parser[name]
        if "jobrunner consume" not in section.get("command", ""):
            continue
        seconds = section.get("stopwaitsecs", "10")
        if seconds.isdecimal() and int(seconds) < STOP_SECONDS:
            why = "supervisord kills us before we have handed running jobs back"
            yield Finding("warn", f"{path} [{name}]", f"stopwaitsecs={seconds}", why, f"stopwaitsecs={STOP_SECONDS}")
        elif section.get("stopsignal", "TERM").removeprefix("SIG") not in ("TERM", "INT"):
            why = "only TERM and INT hand running jobs back"
            yield Finding("warn", f"{path} [{name}]", f"stopsignal={section['stopsignal']}", why, "stopsignal=TERM")
        elif section.get("autorestart", "unexpected") == "false":
            why = "every way out of ours counts on being started again"
            yield Finding("warn", f"{path} [{name}]", "autorestart=false", why, "autorestart=true")
        else:
            yield Finding("ok", f"{path} [{name}]", f"stopwaitsecs={seconds}")


def _parsed(path: Path) -> configparser.RawConfigParser:
    """Read a supervisord.conf with what it includes."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read(path)
    for pattern in parser.get("include", "files", fallback="").split():
        parser.read(sorted(path.parent.glob(pattern) if not pattern.startswith("/") else Path("/").glob(pattern[1:])))
    return parser


def _tried(subject: str, value: str | None, action: Callable[[], object], cure: str) -> Iterator[Finding]:
    if not value:
        return
    try:
        action()
    except JobrunnerError as error:
        yield Finding("error", subject, str(error), "consume would not start", cure)
    else:
        yield Finding("ok", subject, value)
