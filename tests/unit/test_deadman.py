"""What the switch leaves behind, and who finds it. That it fires is shown on real processes."""

import os
import threading
from pathlib import Path

import pytest

from jobrunner.worker import deadman
from jobrunner.worker.deadman import DeadMansSwitch

STACKS = """Timeout (0:00:04)!
Thread 0x1 (most recent call first):
  File "receiver.py", line 1 in loop

Thread 0x2 (most recent call first):
  File "jobs.py", line 7 in culprit
  File "calling.py", line 36 in call
"""


@pytest.fixture
def start(tmp_path, monkeypatch, log):
    monkeypatch.setattr(deadman.tempfile, "gettempdir", lambda: str(tmp_path))
    return lambda owner="app": DeadMansSwitch(owner=owner, visibility_seconds=10, in_hand=lambda: 0, log=log)


@pytest.fixture
def left(start, tmp_path):
    """Leave a file as a worker that died would."""

    def leave(text, owner="app"):
        switch = start(owner)
        path = switch._path.with_name(switch._path.name.replace(f"-{os.getpid()}.", "-999999."))  # no such pid
        switch.close()
        path.write_text(text)
        return path

    return leave


def test_a_dump_of_a_dead_worker_is_reported_once_with_the_job_that_held_it(start, left, events):
    path = left(STACKS)
    start().close()
    start().close()
    line = events.one("deadman.found")
    assert "culprit" in line["stacks"]
    assert "receiver.py" not in line["stacks"]
    assert Path(line["file"]).read_text() == STACKS
    assert not path.exists()


def test_a_worker_that_was_killed_is_said_with_its_pid_and_when(start, left, events):
    path = left("")
    os.utime(path, (1_795_500_000, 1_795_500_000))
    start().close()
    line = events.one("worker.killed")
    assert (line["worker_pid"], line["last_seen_at"]) == (999_999, "2026-11-24T06:00:00+00:00")
    assert not path.exists()


def test_the_stamp_is_the_last_that_was_seen_of_a_worker(start):
    switch = start()
    os.utime(switch._path, (0, 0))
    switch.stamp()
    assert switch._path.stat().st_mtime > 0
    switch.close()


def test_what_another_apps_worker_left_is_not_ours_to_tell(start, left, events):
    path = left(STACKS, owner="another app")
    start().close()
    assert (events, path.exists()) == ([], True)


def test_a_stray_file_in_the_temporary_folder_hurts_nobody(start, left, events):
    path = left("")
    path.rename(path.with_name(path.name.replace("999999", "old")))
    start().close()
    assert events == []


def test_a_temporary_folder_that_cannot_be_written_is_said_and_hurts_nobody(start, tmp_path, events):
    tmp_path.rmdir()
    switch = start()
    switch.arm()
    switch.close()
    assert "the switch works" in events.one("courtesy.failed")["effect"]


def test_workers_that_start_together_may_find_the_same_dump(start, left, events):
    for _ in range(20):
        left(STACKS)
        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(events.named("deadman.found")) >= 20
