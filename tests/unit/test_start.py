"""The start of a worker whose queue does not answer yet."""

import gc

import pytest

from jobrunner.errors import QueueError
from jobrunner.settings import Settings
from jobrunner.worker import start


@pytest.fixture
def collecting():
    yield
    gc.enable()


def test_while_it_waits_for_its_queue_garbage_is_collected_again(monkeypatch, log, events, collecting):
    """Each try makes clients and errors that hold each other: hours of them would fill the memory."""
    was_collecting = []

    def connect(*_, **__):
        was_collecting.append(gc.isenabled())
        if len(was_collecting) < 3:
            raise QueueError("not there yet")
        return "queue", "attributes"

    monkeypatch.setattr(start.sqs, "connect", connect)
    monkeypatch.setattr(start.time, "sleep", lambda _seconds: None)
    gc.disable()
    assert start._connect(Settings(queue_url="http://127.0.0.1:1/0/q"), log) == ("queue", "attributes")
    assert was_collecting == [False, True, True]
    assert [line["event"] for line in events] == ["sqs.outage", "sqs.recovered"]
