"""The shipped supervisord.conf under a real supervisord, with the real web server and worker."""

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from containers import Container
from servers import ROOT, counts, wait_for

from jobrunner import enqueue_many


@pytest.fixture
def container(tmp_path, elasticmq_url, make_queue):
    started = []

    def start(**env):
        started.append(Container(tmp_path, make_queue(elasticmq_url), **env))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_web_and_worker_run_and_restart_loses_nothing(container):
    box = container(JOBRUNNER_PROCESSES="2").wait_until_up()
    status = wait_for(lambda: (text := box.ctl("status")).count("RUNNING") == 4 and text, 30, lambda: box.ctl("status"))
    assert "jobrunner:jobrunner_00" in status
    web = psutil.Process(int(box.ctl("pid", "web")))
    assert min(psutil.Process(pid).nice() for pid in box.worker_pids()) > web.nice(), "web requests come first"
    url = box.env["JOBRUNNER_QUEUE_URL"]
    enqueue_many([("mishaps.stumble", {"key": f"k{n}", "times": 0}) for n in range(200)], queue_url=url)
    assert "started" in box.ctl("restart", "jobrunner:*")
    wait_for(lambda: counts(url) == (0, 0, 0), 60, lambda: f"{counts(url)} {box.log.read_text()[-3000:]}")
    assert len(list((box.folder / "data" / "tasks").glob("k*.json"))) == 200
    assert counts(url, dead=True) == (0, 0, 0)
    lines = [line for line in box.log.read_text().splitlines() if "event" in line]
    assert len(lines) > 200
    assert all(json.loads(line)["event"] for line in lines), "each line of two processes arrives whole"


def test_the_container_is_healthy_until_a_worker_is_stuck(container):
    box = container().wait_until_up()

    def healthy():
        command = [sys.executable, ROOT / "deploy" / "healthy.py"]
        return subprocess.run(command, check=False, capture_output=True, env=box.env).returncode == 0

    wait_for(lambda: list(box.run_dir.glob("worker-*.json")), 15)
    wait_for(healthy, 15)
    worker = int(box.ctl("pid", "jobrunner:jobrunner_00"))
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: not healthy(), 40, "a frozen worker to be noticed")
    os.kill(worker, signal.SIGCONT)
    wait_for(healthy, 15)


@pytest.mark.long
def test_a_web_that_cannot_start_ends_the_container_with_1(container, tmp_path):
    (tmp_path / "app" / "deploy").mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "start.py", tmp_path / "app" / "deploy")
    shutil.copytree(ROOT / "jobs", tmp_path / "app" / "jobs")
    (tmp_path / "app" / "web").mkdir()
    (tmp_path / "app" / "web" / "__init__.py").write_text("raise RuntimeError('a broken deploy')")
    box = container(APP_DIR=str(tmp_path / "app"))
    assert box.process.wait(110) == 1
    assert "web is FATAL" in box.log.read_text()


def test_a_worker_that_cannot_start_does_not_take_the_web_down(container):
    box = container(JOBRUNNER_MODULE="no_such_module")
    wait_for(lambda: box.log.exists() and box.log.read_text().count("worker.refused") >= 3, 30)
    assert box.answers()
    box.stop()
