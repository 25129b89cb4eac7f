"""Holds lines of workers against docs/events.schema.json: what they say is a contract."""

import json
from collections import Counter

from jsonschema import Draft202012Validator
from servers import ROOT

SCHEMA = json.loads((ROOT / "docs" / "events.schema.json").read_text())
WHOLE = Draft202012Validator(SCHEMA)
#: For speed: what the whole would choose by the event's name.
OF_EVENT = {name: WHOLE.evolve(schema=definition) for name, definition in SCHEMA["$defs"].items()}
#: What begins with these words is ours, and so must be there.
OURS = {name.split(".")[0] for name in OF_EVENT}
#: How many lines this process has checked, by event.
CHECKED = Counter()


def faults_of(line):
    """Say what is wrong with a line, as a list of sentences."""
    event = line.get("event")
    validator = OF_EVENT.get(event, WHOLE)
    CHECKED[event if validator is not WHOLE else "of the app"] += 1
    if validator is WHOLE and str(event).partition(".")[0] in OURS and "." in str(event):
        return [f"there is no event {event}"]
    return [f"{error.message} in {line}" for error in validator.iter_errors(line)]


def faults_of_call(event):
    """Do the same for what a room says, before the ids of a job that runs and the stamp are put on the line."""
    stamp = {"timestamp": "now", "pid": 1, "method": None, "message_id": "m", "job_id": "j", "attempt": 1}
    traceback = {"exception": "..."} if event.pop("exc_info", None) else {}
    known = SCHEMA["$defs"].get(event["event"], {}).get("properties", {})
    return faults_of({key: value for key, value in stamp.items() if key in known} | event | traceback)


def faults_in(text):
    """Do the same for each line of JSON in a text."""
    faults = []
    for each in text.splitlines():
        try:
            line = json.loads(each)
        except ValueError:
            continue
        if isinstance(line, dict):
            faults += faults_of(line)
    return faults
