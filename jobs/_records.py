"""What is known of each task, as files that the web and the worker of one container share.

With several containers this would be a table or a bucket; the jobs would look the same.
"""

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

from jobrunner import current_job


def folder(name):
    path = Path(os.environ.get("DEMO_DATA", "data")) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def write(path, data):
    """Replace a file whole: a job may run twice, or die half way, and a reader sees the old or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)


def update(key, **fields):
    path = folder("tasks") / f"{key}.json"
    record = json.loads(path.read_text()) if path.exists() else {"key": key, "created": time.time()}
    write(path, json.dumps({**record, **fields}).encode())


def latest(count=30):
    records = [json.loads(path.read_text()) for path in folder("tasks").glob("*.json")]
    return sorted(records, key=lambda record: -record["created"])[:count]


@contextmanager
def progress(key):
    """Record that a job runs, and how it ended."""
    update(key, state="running", attempt=current_job().attempt, error="")
    try:
        yield
    except Exception as error:
        update(key, state="failed", error=str(error))
        raise
    update(key, state="done")
