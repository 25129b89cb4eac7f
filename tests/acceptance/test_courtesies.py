"""Health and lines are courtesies: one that cannot be had is said once and ends nothing."""

import os
import subprocess
import time

import lines
import pytest
from servers import wait_for
from workers import PROGRAM

pytestmark = pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)


def test_a_status_file_that_cannot_be_written_any_more_is_said_once(app, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    worker = app.consume("--status-file", folder / "status.json")
    wait_for((folder / "status.json").exists)
    (folder / "status.json").unlink()
    folder.rmdir()
    worker.wait("courtesy.failed")
    app.enqueue(("nap", {"seconds": 7}))
    worker.wait("job.done")
    assert len(worker.named("courtesy.failed")) == 1, "though it is tried again"
    folder.mkdir()
    wait_for((folder / "status.json").exists)
    assert worker.stop()[0] == 0


def test_a_folder_of_the_status_files_name_stops_no_start(app, tmp_path):
    (tmp_path / "status.json").mkdir()
    worker = app.consume("--status-file", tmp_path / "status.json")
    worker.wait("worker.ready")
    worker.wait("courtesy.failed")
    app.enqueue(("note", ["x"]))
    worker.wait("job.done")
    assert worker.stop()[0] == 0


def test_the_status_file_says_that_the_worker_stops(app, tmp_path):
    status = tmp_path / "status.json"
    app.write_jobs("""
def leak(): HOARD.append(bytearray(200_000_000))
HOARD = []
def hold():
    note("held")
    while not (HERE / "seen").exists(): time.sleep(0.1)
""")
    worker = app.consume("--status-file", status, "--max-memory-mb", 150)
    app.enqueue(("hold", {}))
    wait_for(lambda: app.notes() == ["held"], what=lambda: str(worker))
    app.enqueue(("leak", {}))
    wait_for(lambda: '"stopping"' in status.read_text(), what=lambda: f"{status.read_text()}\n{worker}")
    (app.folder / "seen").touch()
    assert worker.end() == 9
    assert len(worker.named("memory.limit")) == 1


@pytest.mark.parametrize("jobs_log", [False, True])
def test_a_reader_that_does_not_read_holds_neither_jobs_nor_the_stop(app, jobs_log):
    """A log driver that blocks: the pipe is full, and stays so."""
    app.write_jobs("def say():\n    for n in range(5): log.warning('x' * 3000)\n    note('said')\n")
    reader, writer = os.pipe()
    words = ["consume", "--queue-url", app.queue_url, "--app-dir", app.folder, "--wait-seconds", 2]
    process = subprocess.Popen([*PROGRAM, *map(str, words)], stdout=writer, stderr=writer)
    os.close(writer)
    try:
        app.enqueue(*[("say" if jobs_log else "note", [] if jobs_log else ["said"])] * 400)
        wait_for(lambda: len(app.notes()) == 400, 60, lambda: str(len(app.notes())))
        wait_for(lambda: app.counts() == (0, 0, 0))
        app.enqueue(("nap", {"seconds": 30}))
        wait_for(lambda: "start nap" in app.notes())
        started = time.monotonic()
        process.terminate()
        assert process.wait(60) == 0
        assert time.monotonic() - started < 5
        assert sum(app.counts()) == 1, "handed back"
        assert not lines.faults_in(os.read(reader, 1_000_000).decode(errors="replace"))
    finally:
        process.kill()
        os.close(reader)


def test_an_around_that_gives_no_context_manager_is_said_once_and_keeps_every_job(app):
    """Found at the first job, since it may only be called for one: nothing of the app can run."""
    app.write("jobs.py", "def around(): return 5\ndef noop(): pass\n")
    app.enqueue(*[("noop", {})] * 20)
    worker = app.consume("--around", "jobs:around")
    (line,) = worker.wait("around.broken")
    assert "--around 'jobs:around' gave 5, which is no context manager" in line["error"]
    wait_for(lambda: app.counts()[0] == 0)
    assert worker.stop()[0] == 0
    assert len(worker.named("around.broken")) == 1
    app.consume()
    app.wait_until_empty(60)
    assert app.counts(dead=True) == (0, 0, 0)
