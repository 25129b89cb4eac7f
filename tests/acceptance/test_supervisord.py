"""The shipped supervisord.conf under a real supervisord, with the real web server and worker."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request

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
    status = wait_for(lambda: (text := box.ctl("status")).count("RUNNING") == 4 and text, 60, lambda: box.ctl("status"))
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

    def healthy(**more):
        command = [sys.executable, ROOT / "deploy" / "healthy.py"]
        return subprocess.run(command, check=False, capture_output=True, env={**box.env, **more}).returncode == 0

    wait_for(lambda: list(box.run_dir.glob("worker-*.json")))
    wait_for(healthy)
    assert not healthy(HEALTH_PATH="/no-such-page")
    worker = int(box.ctl("pid", "jobrunner:jobrunner_00"))
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: not healthy(), 40, "a frozen worker to be noticed")
    os.kill(worker, signal.SIGCONT)
    wait_for(healthy)


def app_of(folder, web):
    """An app of the test's own, with our files for the container; its web module is given."""
    (folder / "app").mkdir()
    shutil.copytree(ROOT / "deploy", folder / "app" / "deploy")
    (folder / "app" / "web").mkdir()
    (folder / "app" / "web" / "__init__.py").touch()
    (folder / "app" / "web" / "app.py").write_text(textwrap.dedent(web))
    (folder / "app" / "jobs.py").write_text(textwrap.dedent(JOBS))
    return str(folder / "app")


JOBS = """
    import os, threading, time
    from jobrunner import current_job
    def note(text):
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(f"{time.monotonic()} {text}\\n")
    def nap(seconds):
        time.sleep(seconds)
        note("nap ended")
    def second(seconds):
        if current_job().attempt == 1:
            raise ValueError("the first time")
        note("last attempt started")
        time.sleep(seconds)
        note("last attempt ended")
    def kill_me():
        os.kill(os.getpid(), 9)
"""
WEB = """
    import os, time
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            time.sleep(25)
        start_response("200 OK", [])
        return [b"fine"]
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("web", "says"),
    [
        ("raise RuntimeError('a broken deploy')", "a broken deploy"),
        ("import time\ntime.sleep(6)\nraise RuntimeError('slowly broken')", "slowly broken"),
        (f"{WEB}    import threading\n    threading.Timer(8, os.kill, (os.getppid(), 9)).start()", "Listening at"),
    ],
    ids=["at once", "after a slow import", "every eight seconds"],
)
def test_a_web_that_cannot_start_ends_the_container_with_1(container, tmp_path, web, says):
    box = container(APP_DIR=app_of(tmp_path, web), NOTES=str(tmp_path / "notes"))
    assert box.process.wait(150) == 1
    assert "web is FATAL" in box.log.read_text()
    lines = [json.loads(line) for line in box.log.read_text().splitlines()]
    assert [line for line in lines if line["event"].startswith(says)], "each line is JSON"


def test_the_worker_is_told_first_and_web_fits_into_what_is_left(container, tmp_path):
    """A request of 25 s is under way, a job too; the container has Docker's 10 s."""
    notes = tmp_path / "notes"
    box = container(APP_DIR=app_of(tmp_path, WEB), NOTES=str(notes)).wait_until_up()
    url = box.env["JOBRUNNER_QUEUE_URL"]
    enqueue_many([("nap", {"seconds": 60})], queue_url=url)
    slow = threading.Thread(target=request, args=(box, "/slow"), daemon=True)
    slow.start()
    wait_for(lambda: counts(url)[1] == 1)
    time.sleep(1)
    started = time.monotonic()
    os.kill(box.process.pid, signal.SIGTERM)
    assert box.process.wait(60) == 0
    assert time.monotonic() - started < 9.5
    box.cat.wait(10)
    lines = [json.loads(line) for line in box.log.read_text().splitlines()]
    order = [line["event"] for line in lines if line["event"] in ("worker.stopped", "Handling signal: term")]
    assert order == ["worker.stopped", "Handling signal: term"], "and each line of the container is one JSON object"
    assert counts(url) == (1, 0, 0), "handed back"


def request(box, path):
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{box.port}{path}", timeout=60) as answer,
    ):
        answer.read()


@pytest.mark.parametrize("how", ["restart", "stop"])
def test_a_deploy_makes_no_dead_letter_of_a_last_attempt(container, tmp_path, elasticmq_url, make_queue, how):
    notes = tmp_path / "notes"
    notes.touch()
    url = make_queue(elasticmq_url, attempts_max=2, visibility_seconds=10)
    box = container(APP_DIR=app_of(tmp_path, WEB), NOTES=str(notes), JOBRUNNER_QUEUE_URL=url, STOP_SECONDS="20")
    box.wait_until_up()
    enqueue_many([("second", {"seconds": 8})], queue_url=url)
    wait_for(lambda: "started" in notes.read_text())
    if how == "restart":
        assert "started" in box.ctl("restart", "jobrunner:*")
        wait_for(lambda: "ended" in notes.read_text())
    else:
        os.kill(box.process.pid, signal.SIGTERM)
        assert box.process.wait(60) == 0
        assert "ended" in notes.read_text(), "it had the rest of the stop time"
    wait_for(lambda: counts(url) == (0, 0, 0))
    assert counts(url, dead=True) == (0, 0, 0)


def test_a_worker_that_is_killed_leaves_a_line_that_says_how(container, tmp_path):
    box = container(APP_DIR=app_of(tmp_path, WEB), NOTES=str(tmp_path / "notes")).wait_until_up()
    os.kill(box.worker_pids()[0], signal.SIGKILL)
    wait_for(lambda: "terminated by SIGKILL" in box.log.read_text())
    (line,) = [json.loads(line) for line in box.log.read_text().splitlines() if "SIGKILL" in line and "exited" in line]
    assert (line["event"], "jobrunner" in line["text"]) == ("supervisor.said", True)
    wait_for(lambda: "worker.killed" in box.log.read_text())


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8, 1.5])
def test_a_stop_right_after_the_start_is_heard_by_the_worker(container, seconds):
    """supervisord loses what it signals between fork and exec, and then kills the worker after its time."""
    box = container()
    time.sleep(seconds)
    os.kill(box.process.pid, signal.SIGTERM)
    assert box.process.wait(60) in (0, -signal.SIGTERM)
    assert "killing 'jobrunner" not in box.log.read_text()


def test_a_worker_that_cannot_start_does_not_take_the_web_down(container):
    box = container(JOBRUNNER_MODULE="no_such_module")
    wait_for(lambda: box.log.exists() and box.log.read_text().count("worker.refused") >= 3)
    assert box.answers()
    box.stop()


def test_when_supervisord_is_killed_its_programs_are_told_and_the_container_ends_with_its_code(container):
    """By the out-of-memory killer, say: an exit of 0 would be a stop that somebody asked for."""
    box = container().wait_until_up()
    wait_for((box.run_dir / "worker-0.json").exists)
    os.kill(box.pid(), signal.SIGKILL)
    assert box.process.wait(60) == 128 + signal.SIGKILL
    box.stop()
    assert '"supervisor.died"' in box.log.read_text()
    assert not box.worker_pids()
    assert not (box.run_dir / "worker-0.json").exists(), "an orderly stop takes it away; its lines went to supervisord"


def test_a_wrong_setting_of_the_container_is_one_line(container):
    for wrong in ({"STOP_SECONDS": "soon"}, {"JOBRUNNER_PROCESSES": "zwei"}):
        box = container(**wrong)
        assert box.process.wait(60) == 2
        box.stop()
        (line,) = map(json.loads, box.log.read_text().splitlines())
        assert line["event"] == "start.refused"
        assert "STOP_SECONDS" in line["text"]


def test_a_long_traceback_of_the_web_server_is_cut_to_a_line_that_a_pipe_takes_whole():
    script = (
        "import logging, runpy, sys\nconf = runpy.run_path('deploy/gunicorn.conf.py')\n"
        "record = logging.makeLogRecord({'msg': 'x' * 900, 'levelname': 'ERROR', 'name': 'w'})\n"
        "try: raise ValueError('x' * 9000 + 'the end')\nexcept ValueError: record.exc_info = sys.exc_info()\n"
        "print(conf['Json']().format(record))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert 3000 < len(done.stdout) <= 4096
    line = json.loads(done.stdout)
    assert line["event"] == "x" * 900
    assert line["exception"].startswith("Traceback")
    assert " ...[cut]... " in line["exception"]
    assert line["exception"].endswith("the end")
