"""`jobrunner dev`: everything on a laptop, and `make demo` on top of it."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from servers import ROOT, counts, wait_for
from workers import PROGRAM, Worker

from jobrunner import enqueue

JOBS = "from pathlib import Path\ndef say(word):\n    Path(__file__).with_name('said').write_text('{}' + word)\n"


@pytest.fixture
def dev(tmp_path):
    started = []
    (tmp_path / "jobs.py").write_text(JOBS.format(""))

    def dev(*command, flags=(), **options):
        words = [*flags, *(["--", *command] if command else [])]
        how = {"cwd": tmp_path, "start_new_session": True, **options}
        started.append(Worker("dev", *(() if "cwd" in options else ("--app-dir", tmp_path)), *words, **how))
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
    assert worker.end() == 0
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
    assert worker.end() == 7, str(worker)


CHAIN = """
import os, subprocess, sys
from jobrunner import current_job, enqueue
def first():
    enqueue(second, {"word": "told"})
def second(word):
    program = [sys.executable, "-m", "jobrunner", "methods"]
    print(subprocess.run(program, capture_output=True, text=True, check=True).stdout, flush=True)
    print(word, current_job().method, flush=True)
"""


def test_what_it_is_told_holds_for_enqueue_in_jobs_in_their_programs_and_in_the_command(dev, tmp_path):
    """A module of another name, a folder that is not the working directory, an --around."""
    (tmp_path / "src" / "app").mkdir(parents=True)
    (tmp_path / "src" / "app" / "tasks.py").write_text(CHAIN)
    around = "from contextlib import contextmanager\n@contextmanager\ndef around(): yield print('around', flush=True)\n"
    (tmp_path / "src" / "app" / "context.py").write_text(around)
    command = "from jobrunner import enqueue; from app import tasks; enqueue(tasks.first); import time; time.sleep(60)"
    flags = ["--app-dir", "src", "--module", "app.tasks", "--around", "app.context:around"]
    worker = dev(sys.executable, "-c", command, flags=flags, cwd=tmp_path)
    worker.wait("job.done", method="second")
    assert {"around\n", "told second\n", "first()\n"} <= set(worker.other), str(worker)
    printed = environment(worker)
    assert printed["JOBRUNNER_MODULE"] == "app.tasks"
    assert printed["JOBRUNNER_APP_DIR"] == str(tmp_path / "src")
    source = next(line.split()[1] for line in worker.other if "source /" in line)
    shell = f". {source} && env"
    found = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True).stdout
    assert f"JOBRUNNER_QUEUE_URL={printed['JOBRUNNER_QUEUE_URL']}\n" in found


def test_its_flags_win_over_variables_and_each_typo_is_said(dev, tmp_path, monkeypatch):
    monkeypatch.setenv("JOBRUNNER_MODULE", "another")
    monkeypatch.setenv("JOBRUNNER_CRONS", "/another.toml")
    (tmp_path / "mine.toml").touch()
    command = "import os, time; print(os.environ['JOBRUNNER_MODULE'], os.environ['JOBRUNNER_CRONS'], flush=True)"
    flags = ["--module", "jobs", "--crons", "mine.toml"]
    worker = dev(sys.executable, "-c", f"{command}; time.sleep(100)", flags=flags, cwd=tmp_path)
    wait_for(lambda: f"jobs {tmp_path}/mine.toml\n" in worker.other)
    url = environment(worker)["JOBRUNNER_QUEUE_URL"]
    for _ in range(2):
        enqueue("sya", queue_url=url)
    worker.wait("job.unknown_method", 2, method="sya")


def test_each_queue_has_a_consumer_and_few_attempts_make_dead_letters_soon(dev, tmp_path, monkeypatch):
    (tmp_path / "jobs.py").write_text("def fail(): raise ValueError\ndef ok(): pass\n")
    worker = dev(flags=["--queue", "quick", "--queue", "slow-ones", "--attempts", "2"])
    printed = environment(worker)
    for name, value in printed.items():
        monkeypatch.setenv(name, value)
    assert printed["JOBRUNNER_QUEUE_URL"].endswith("/quick")
    worker.wait("worker.ready", 2)
    enqueue("ok", queue_url=printed["JOBRUNNER_QUEUE_URL_SLOW_ONES"])
    enqueue("fail")
    worker.wait("job.done", method="ok")
    worker.wait("job.given_up", method="fail")
    wait_for(lambda: counts(printed["JOBRUNNER_QUEUE_URL"], dead=True) == (1, 0, 0))


@pytest.mark.long
def test_crons_that_are_written_while_it_runs_fire_and_those_elsewhere_are_named(dev, tmp_path):
    (tmp_path / "jobs.py").unlink()
    (tmp_path / "other").mkdir()
    worker = dev()
    environment(worker)
    (tmp_path / "other" / "crons.toml").touch()
    said = f"{tmp_path}/other/crons.toml is not used: it belongs at {tmp_path}/crons.toml"
    wait_for(lambda: any(said in line for line in worker.other))
    worker.wait("worker.refused")
    wait_for(lambda: any("waiting for a change" in line for line in worker.other))
    jobs = tmp_path / "jobs"  # so that the file's place is another than at the start
    jobs.mkdir()
    (jobs / "__init__.py").write_text(JOBS.format(""))
    worker.wait("worker.ready")
    (jobs / "crons.toml").write_text('[soon]\nmethod = "say"\nparams = ["tick"]\nschedule = "rate(1 minute)"\n')
    wait_for((jobs / "said").exists, 90, lambda: str(worker))


LATER = """
import os
from datetime import UTC, datetime, timedelta
from jobrunner import enqueue
from jobrunner.sending import how
print("id", enqueue("say", ["never"], at=datetime(2036, 1, 31, 12, tzinfo=UTC)), flush=True)
how.DELAY_SECONDS_MAX = 0  # so that a second is later than a message can be delayed
enqueue("say", ["later"], at=datetime.now(UTC) + timedelta(seconds=1), id="soon", group="g")
import time; time.sleep(100)
"""


@pytest.mark.long
def test_a_job_for_later_fires_here_too_and_one_that_waits_is_listed_and_taken_back(dev, tmp_path):
    """Scheduler's own steps are a minute, so this one takes up to one."""
    worker = dev(sys.executable, "-c", LATER)
    printed = environment(worker)
    wait_for(lambda: any(line.startswith("id ") for line in worker.other))
    job_id = next(line.split()[1] for line in worker.other if line.startswith("id "))

    def scheduled(*words, code=0):
        command = [*PROGRAM, "scheduled", *words]
        found = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **printed})
        assert found.returncode == code, found
        return found.stdout

    assert f"2036-01-31T12:00:00+00:00  say  {job_id}\n" in scheduled("list")
    assert '"method": "say"' in scheduled("show", job_id)
    listed = {line["id"]: line["at"] for line in map(json.loads, scheduled("list", "--json").splitlines())}
    assert listed[job_id] == "2036-01-31T12:00:00+00:00"
    assert scheduled("cancel", job_id) == "cancelled\n"
    scheduled("cancel", job_id, code=2)
    worker.wait("job.done", seconds=90, job_id="soon")
    assert scheduled("list") == ""


@pytest.mark.parametrize("after_seconds", [0.05, 0.1, 0.3])
def test_ctrl_c_at_its_start_is_no_traceback(tmp_path, after_seconds):
    worker = Worker("dev", "--app-dir", tmp_path, cwd=tmp_path, start_new_session=True)
    wait_for(lambda: "jobrunner" in psutil.Process(worker.process.pid).cmdline())
    time.sleep(after_seconds)
    os.killpg(worker.process.pid, signal.SIGINT)
    # Python itself, before it has come to our first line, prints one and ends by the signal, or with 1.
    assert worker.end() in (0, 128 + signal.SIGINT, -signal.SIGINT, 1)
    assert not [line for line in worker.other if "File" in line and "jobrunner/" in line], str(worker)


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
