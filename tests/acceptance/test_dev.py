"""`jobrunner dev`: everything on a laptop, and `make demo` on top of it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from servers import ROOT, wait_for
from workers import Worker

from jobrunner import enqueue

JOBS = "from pathlib import Path\ndef say(word):\n    Path(__file__).with_name('said').write_text('{}' + word)\n"


@pytest.fixture
def dev(tmp_path):
    started = []
    (tmp_path / "jobs.py").write_text(JOBS.format(""))

    def dev(*command):
        words = ["--", *command] if command else []
        started.append(Worker("dev", "--app-dir", tmp_path, *words, cwd=tmp_path, start_new_session=True))
        return started[-1]

    yield dev
    for worker in started:
        if worker.process.poll() is None:
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.end()


def environment(worker):
    wait_for(lambda: any("jobrunner enqueue METHOD" in line for line in worker.other))
    exports = [line.split("export ")[1].strip() for line in worker.other if "export " in line]
    return dict(word.split("=", 1) for word in exports)


def test_what_it_prints_is_enough_for_another_terminal_and_ctrl_c_stops_all(dev, tmp_path, monkeypatch):
    worker = dev()
    for name, value in environment(worker).items():
        monkeypatch.setenv(name, value)
    worker.wait("worker.ready")
    enqueue("say", ["hello"])
    wait_for((tmp_path / "said").exists)
    os.killpg(worker.process.pid, signal.SIGINT)  # as a terminal sends it: to all of the group, once
    assert worker.end(10) == 0
    assert worker.named("worker.stopped"), str(worker)


def test_the_consumer_starts_again_when_code_changes_and_survives_broken_code(dev, tmp_path, monkeypatch):
    worker = dev()
    for name, value in environment(worker).items():
        monkeypatch.setenv(name, value)
    worker.wait("worker.ready")
    (tmp_path / "jobs.py").write_text("this is not Python")
    worker.wait("worker.refused")
    (tmp_path / "jobs.py").write_text(JOBS.format("new: "))
    worker.wait("worker.ready", 2)
    enqueue("say", ["hello"])
    wait_for(lambda: (tmp_path / "said").exists() and (tmp_path / "said").read_text() == "new: hello")


def test_broken_code_is_not_started_once_more_at_the_end(dev, tmp_path):
    (tmp_path / "jobs.py").write_text("this is not Python")
    worker = dev()
    worker.wait("worker.refused")
    (reloader,) = psutil.Process(worker.process.pid).children()
    wait_for(lambda: not reloader.children(), what="the refused worker is gone")
    assert worker.stop()[0] == 0
    assert len(worker.named("worker.refused")) == 1


def test_the_command_gets_the_environment_and_its_end_ends_all(dev, tmp_path):
    script = (
        "from os import environ as e; assert e['AWS_ENDPOINT_URL_SQS'] in e['JOBRUNNER_QUEUE_URL']; raise SystemExit(7)"
    )
    worker = dev(sys.executable, "-c", script)
    assert worker.end(20) == 7, str(worker)


def test_without_the_extra_it_says_what_to_install(tmp_path):
    (tmp_path / "moto").mkdir()
    (tmp_path / "moto" / "__init__.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "jobrunner", "dev"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "pip install 'jobrunner-sqs[dev]'" in done.stderr


@pytest.mark.long
def test_the_demo_ends_by_itself_with_what_happened_to_each_job_twice(tmp_path):
    for _ in range(2):
        demo = Worker("dev", "--", sys.executable, "-m", "web.demo", cwd=ROOT, env={"DEMO_DATA": str(tmp_path)})
        assert demo.end(90) == 0, str(demo)
        text = "".join(demo.other)
        assert "the page, while this runs: http://127.0.0.1:" in text
        assert text.count("thumbnails.make    done at attempt 1") == 4
        assert "newsletter.write   done: 3 letters" in text
        assert "mishaps.stumble    failed once, done at attempt 2" in text
        assert "thumbnails.mak     no such method" in text
        assert len(demo.named("job.done")) == 6
