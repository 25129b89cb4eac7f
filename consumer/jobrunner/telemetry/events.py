"""What the log says: every event of ours with its fields, the one table that pages and schema are made of; no thread.

`make pages` writes the schema (docs/events.schema.json) and the table in docs/running.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: A number's name ends in its unit.
UNITS = {"_ms": "milliseconds", "_seconds": "seconds", "_minutes": "minutes", "_mb": "MiB", "_count": "", "_max": ""}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its JSON type, or types, and what it says."""

    type: str
    meaning: str


FIELDS = {
    "alone_count": Field("integer", "last attempts that go on in processes of their own"),
    "action": Field("string", "what was asked of SQS: receive, delete, ..."),
    "attempt": Field("integer", "which attempt this is, from 1"),
    "attempts_max": Field("integer|null", "the queue's maxReceiveCount; null where it has none"),
    "cause": Field("string", "what brings this about"),
    "code": Field("integer", "the process's exit code"),
    "cure": Field("string", "what mends it, as a command where there is one"),
    "django": Field("string", "--django"),
    "duration_ms": Field("number", "so long the job ran"),
    "effect": Field("string", "what follows from it"),
    "error": Field("string", "what went wrong, and the cure"),
    "exception": Field("string", "the traceback"),
    "file": Field("string", "where the whole of it is kept"),
    "handed_back_count": Field("integer", "deliveries that went to others"),
    "held_seconds": Field("number", "so long the event loop has not answered"),
    "in_hand_count": Field("integer", "deliveries taken and not yet settled"),
    "job_id": Field("string", "the job's id: what enqueue returned"),
    "key_count": Field("integer", "keys of a line that could not be cut to its length"),
    "last_seen_at": Field("string", "when it was last alive, UTC"),
    "lease_lost": Field("boolean", "whether SQS refused its renewal"),
    "limit_mb": Field("integer", "--max-memory-mb"),
    "limit_seconds": Field("integer", "--job-timeout"),
    "line_count": Field("integer", "lines that are missing here"),
    "max_age_seconds": Field("integer", "the cron's max_age_seconds"),
    "message_count": Field("integer", "so many messages"),
    "message_id": Field("string|null", "SQS's id of the message"),
    "message_ids": Field("array|string", "SQS's ids of the messages; text where the line was cut"),
    "method": Field("string|null", "the job's name; null where the body has none"),
    "method_count": Field("integer", "jobs found in the module"),
    "module": Field("string", "--module"),
    "of": Field("string", "the event of the line that could not be cut to its length"),
    "outage_seconds": Field("number", "so long SQS did not answer"),
    "out_seconds": Field("integer", "so long the receive has been under way"),
    "protected_minutes": Field("integer", "so long ECS leaves the task alone"),
    "queue_ms": Field("integer", "so long the message waited since it was sent"),
    "queue_url": Field("string", "--queue-url"),
    "reason": Field("string", "why"),
    "resident_mb": Field("integer", "memory of the process"),
    "retry_seconds": Field("number|null", "until it is seen again; null: it is not"),
    "retry_seconds_ignored": Field("string", "why the exception's own retry_seconds does not count"),
    "running_seconds": Field("number", "so long the job has run"),
    "stack": Field("string", "where the code stands"),
    "stacks": Field("string", "where each job's thread stood"),
    "state": Field("string", "waiting, running, awaiting, alone, done or releasing"),
    "subject": Field("string", "what was looked at"),
    "text": Field("string", "supervisord's own words"),
    "thread": Field("string", "the thread's name"),
    "thread_count": Field("integer", "--threads"),
    "undeleted_count": Field("integer", "jobs that are done and may run again"),
    "value": Field("string", "what it is"),
    "visibility_seconds": Field("integer", "the visibility timeout"),
    "why": Field("string", "why it matters"),
    "worker_pid": Field("integer", "the process that is told of"),
}
#: On every line; `pid` only on the worker's.
EVERYWHERE = {
    "timestamp": Field("string", "UTC, to the millisecond"),
    "level": Field("string", "info, warning, error or critical"),
    "event": Field("string", "what happened"),
    "pid": Field("integer", "the process"),
    "keys_cut_count": Field("integer", "keys that were left out: a line has at most 100"),
}
OF_A_JOB = ("method", "message_id", "job_id", "attempt")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its levels, what it means, the fields that it has, and those that it may have.

    `of_worker`: said by the worker; else by what starts the container, without a pid.
    `of_job`: about one job, by whose ids it is found; where the job's own thread says it, with its context too.
    """

    levels: str
    meaning: str
    has: str = ""
    may: str = ""
    of_job: bool = False
    of_worker: bool = True

    def fields(self) -> Iterator[tuple[str, bool]]:
        """Give each field's name, and whether the line always has it."""
        if self.of_job:
            yield from ((name, True) for name in OF_A_JOB)
        yield from ((name, True) for name in self.has.split())
        yield from ((name, False) for name in self.may.split())


EVENTS = {
    "worker.ready": Event(
        "info",
        "at work; the settings that matter are on the line",
        "queue_url module method_count thread_count visibility_seconds attempts_max",
        "django",
    ),
    "worker.refused": Event(
        "critical", "it could not start: the error names the cure, `code` is the exit code", "error code"
    ),
    "worker.stopping": Event("info", "the reason, and how many deliveries are in hand", "reason in_hand_count"),
    "worker.stopped": Event(
        "info",
        "`handed_back_count` went to others; `undeleted_count` may run again; `alone_count` are last attempts that "
        "go on in processes of their own",
        "code handed_back_count undeleted_count alone_count",
    ),
    "worker.killed": Event(
        "warning",
        "an earlier worker here left no line: SIGKILL (out of memory?), a crash, or a second signal; `last_seen_at` "
        "is right to a second or so",
        "worker_pid last_seen_at cause",
    ),
    "check.finding": Event(
        "warning error",
        "at the start: what `jobrunner check` would say of the queue",
        "subject value why cure",
    ),
    "job.done": Event(
        "info",
        "it returned; `duration_ms` ran, `queue_ms` waited since it was sent",
        "duration_ms queue_ms",
        of_job=True,
    ),
    "around.broken": Event(
        "error",
        "what `--around` names gave no context manager: no job ran; said once a minute, and the jobs are tried again "
        "after half a minute or more, until their attempts are spent",
        "error",
        of_job=True,
    ),
    "job.failed": Event(
        "error",
        "it raised, or ended its own process; `retry_seconds` until it is seen again, `attempt` of `attempts_max`",
        "attempts_max retry_seconds",
        "duration_ms queue_ms exception error retry_seconds_ignored",
        of_job=True,
    ),
    "job.given_up": Event(
        "error",
        "it is a dead letter, or will be when SQS looks at it again: that was its last attempt, or it wants no other "
        "(`retry_seconds = None`); `reason` says which",
        "reason effect",
        of_job=True,
    ),
    "job.not_given_up": Event(
        "error",
        "it wants no other attempt, and could not be put among the dead letters: it is tried again. Where only the "
        "answer was lost it may be there twice",
        "error retry_seconds",
        of_job=True,
    ),
    "job.sent_anew": Event(
        "info",
        "the worker was told to stop while it waited for the turn of its last attempt: a copy with the same id is on "
        "the queue, whose attempts are counted from 1",
        of_job=True,
    ),
    "job.not_sent_anew": Event(
        "error",
        "the same, but no copy could be sent: it is handed back and becomes a dead letter; `dead retry` sends it again",
        "error",
        of_job=True,
    ),
    "job.unknown_method": Event(
        "error",
        "no such job; once a minute and name, on a terminal each time",
        "error retry_seconds",
        of_job=True,
    ),
    "job.bad_params": Event(
        "error",
        "the params do not fit; the function was not called",
        "error retry_seconds",
        of_job=True,
    ),
    "job.malformed": Event("error", "the body is not our wire format", "error retry_seconds", of_job=True),
    "job.expired": Event(
        "warning", "a cron's tick came too late, and was dropped", "queue_ms max_age_seconds", of_job=True
    ),
    "job.timed_out": Event(
        "error",
        "over `--job-timeout`: its own stack is on the line. An `async def` job is cancelled and tried again; for a "
        "plain one the process ends",
        "limit_seconds stack",
        of_job=True,
    ),
    "loop.blocked": Event(
        "warning",
        "an `async def` job has held the event loop for `held_seconds`: all others wait for it; its stack is on the "
        "line",
        "message_id held_seconds stack effect",
        "method job_id attempt",
    ),
    "task.protected": Event(
        "info",
        "`--protect-after`: a job is old enough for ECS to leave this task alone for so many minutes; renewals say "
        "nothing",
        "protected_minutes",
        of_job=True,
    ),
    "task.not_protected": Event("warning", "`--protect-after` where there is no ECS: nothing is done", "why"),
    "job.lease_lost": Event(
        "error",
        "it ran to its end, and its lease ended before its message was deleted: it may run again",
        "effect",
        of_job=True,
    ),
    "job.not_released": Event(
        "warning",
        "a retry comes when the visibility timeout ends, not after its backoff",
        "message_count message_ids error effect",
    ),
    "alone.not_started": Event(
        "warning",
        "a last attempt could have no process of its own (no memory, no descriptors, a deploy that swaps the "
        "folder): it ran beside the others",
        "error effect",
        of_job=True,
    ),
    "lease.lost": Event(
        "error",
        "SQS refused a renewal: the message may start elsewhere meanwhile",
        "error effect",
        of_job=True,
    ),
    "sqs.outage": Event("warning", "SQS does not answer; once, until", "action error"),
    "sqs.recovered": Event("info", "it answers again", "action outage_seconds"),
    "receive.stuck": Event("error", "a receive never came back: the process ends with code 7", "out_seconds"),
    "courtesy.failed": Event(
        "warning",
        "the status file or the file for stacks cannot be written, ECS does not protect the task, or OpenTelemetry "
        "raises; once, nothing waits for it",
        "error effect",
    ),
    "log.dropped": Event("warning", "nobody read our lines for half a second: so many are missing here", "line_count"),
    "log.too_long": Event("warning", "a line that could not be cut to 4,096 bytes, and was left out", "of key_count"),
    "memory.limit": Event(
        "warning", "over `--max-memory-mb`: the process ends when its jobs have", "resident_mb limit_mb"
    ),
    "deadman.found": Event(
        "error",
        "an earlier worker here was ended by the dead-man's switch; the stack shows the job that held the interpreter",
        "file stacks cause",
    ),
    "descriptors.closed": Event(
        "critical", "a job closed descriptors that are not its own: the process ends with code 8", "effect"
    ),
    "thread.died": Event(
        "critical", "a thread of ours broke: a bug of jobrunner's, please report it", "thread exception"
    ),
    "dump.job": Event(
        "warning",
        "answer to SIGUSR1: a job in hand, and where it stands",
        "state lease_lost",
        "running_seconds stack",
        of_job=True,
    ),
    "dump.thread": Event("warning", "answer to SIGUSR1: another thread", "thread stack"),
    "supervisor.said": Event("warning", "a program of the container ended, and how", "text", of_worker=False),
    "supervisor.died": Event("warning", "supervisord itself ended: the programs are stopped", "text", of_worker=False),
    "supervisor.fatal": Event("warning", "supervisord has given a program up", "text", of_worker=False),
    "start.refused": Event(
        "warning", "the container's start could not write or read what it needs", "text", of_worker=False
    ),
}


def table() -> str:
    """Write the events for docs/running.md."""
    rows = []
    for name, event in EVENTS.items():
        own = [(field, always) for field, always in event.fields() if not (event.of_job and field in OF_A_JOB)]
        words = ["the job's ids"] * event.of_job + [f"`{field}`" if always else f"(`{field}`)" for field, always in own]
        rows.append(f"| `{name}` | {event.meaning} | {', '.join(words)} |")
    return "\n".join(["| event | meaning | fields |", "|---|---|---|", *rows])


def schema() -> Mapping[str, Any]:
    """Write the events as a JSON Schema: of an event of ours nothing else is on the line, but a job's context."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The lines of jobrunner consume",
        "description": "Any other event is the app's own, of which nothing is said here.",
        "type": "object",
        "allOf": [
            {
                "if": {"properties": {"event": {"const": name}}, "required": ["event"]},
                "then": {"$ref": f"#/$defs/{name}"},
            }
            for name in EVENTS
        ],
        "$defs": {name: _definition(name, event) for name, event in EVENTS.items()},
    }


def _definition(name: str, event: Event) -> Mapping[str, Any]:
    fields = dict(event.fields())
    common = {key: field for key, field in EVERYWHERE.items() if event.of_worker or key != "pid"}
    needed = [key for key in common if key != "keys_cut_count"] + [key for key, always in fields.items() if always]
    return {
        "description": event.meaning,
        "properties": {
            **{key: _property(key, field) for key, field in common.items()},
            "event": {"const": name},
            "level": {"enum": event.levels.split()},
            **{key: _property(key, FIELDS[key]) for key in fields},
        },
        "required": needed,
        **({} if event.of_job else {"additionalProperties": False}),
    }


def _property(name: str, field: Field) -> Mapping[str, Any]:
    types = field.type.split("|")
    unit = next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")
    return {
        "type": types[0] if len(types) == 1 else types,
        "description": f"{field.meaning}; {unit}" if unit else field.meaning,
        **({"minimum": 0} if types[0] in ("integer", "number") else {}),
    }
