"""PyQS: its message is written by hand, as its decorator writes it."""

import json

from pyqs import task


@task(queue="jobs")
def noop():
    pass


def bodies(count):
    return [json.dumps({"task": "peer_pyqs.noop", "args": [], "kwargs": {}})] * count
