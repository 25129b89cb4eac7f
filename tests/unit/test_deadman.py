"""What the switch leaves behind, and who finds it. That it fires is shown on real processes."""

import os
import threading

import pytest

from jobrunner.worker import deadman
from jobrunner.worker.deadman import DeadMansSwitch

STACKS = """Timeout (0:00:04)!
Thread 0x1 (most recent call first):
  File "receiver.py", line 1 in loop

Thread 0x2 (most recent call first):
  File "jobs.py", line 7 in culprit
  File "execution.py", line 94 in _call
"""


@pytest.fixture
def start(tmp_path, monkeypatch, log):
    monkeypatch.setattr(deadman.tempfile, "gettempdir", lambda: str(tmp_path))
    return lambda: DeadMansSwitch(visibility_seconds=10, in_hand=lambda: 0, log=log)


def left(tmp_path, text):
    path = tmp_path / f"jobrunner-{os.getuid()}-999999.stacks"  # beyond Linux's default of pids
    path.write_text(text)
    return path


def test_a_dump_of_a_dead_worker_is_reported_once_with_the_job_that_held_it(start, tmp_path, events):
    left(tmp_path, STACKS)
    start().close()
    start().close()
    line = events.one("deadman.found")
    assert "culprit" in line["stacks"]
    assert "receiver.py" not in line["stacks"]
    assert (tmp_path / f"jobrunner-{os.getuid()}.stacks").read_text() == STACKS


def test_an_empty_file_of_a_killed_worker_goes_without_a_word(start, tmp_path, events):
    path = left(tmp_path, "")
    start().close()
    assert (path.exists(), events) == (False, [])


def test_workers_that_start_together_may_find_the_same_dump(start, tmp_path, events):
    for _ in range(20):
        left(tmp_path, STACKS)
        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(events.named("deadman.found")) >= 20
