"""The parent of a last attempt: what it makes of its child's end."""

import sys

import pytest

from jobrunner.errors import ExitCode
from jobrunner.message import Delivery
from jobrunner.settings import Settings
from jobrunner.worker import alone

LAST = Delivery(message_id="m", receipt_handle="h", body='{"method":"x"}', attempt=3, sent_at=0.0)


@pytest.fixture
def ends_with(monkeypatch, log):
    """Run a delivery in a child that ends with a code."""

    def run(code):
        child = f"import os, sys; sys.stdin.buffer.read(); os._exit({int(code)})"
        monkeypatch.setattr(alone, "CHILD", (sys.executable, "-c", child))
        return alone.Alone(settings=Settings(queue_url="http://127.0.0.1:1/0/q"), log=log).run(LAST)

    return run


@pytest.mark.parametrize("code", [ExitCode.STOPPED, ExitCode.JOB_TIMEOUT, ExitCode.UNEXPECTED])
def test_a_job_that_ends_its_process_has_failed_whatever_the_code(ends_with, events, code):
    outcome = ends_with(code)
    assert (outcome.name, outcome.deletes) == ("died", False)
    assert f"exit code {int(code)}" in events.one("job.failed")["error"]


def test_a_child_that_settled_its_message_leaves_nothing_to_do(ends_with, events):
    assert ends_with(ExitCode.SETTLED) is None
    assert events == []
