"""What is shipped: the wheel, that it works without the rest of the repository, and an app that is not the demo."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

import lines
import pages
import pytest
from servers import ROOT, free_port, wait_for

from jobrunner import enqueue

PAGE = (ROOT / "docs" / "aws.md").read_text()
WEB = """
from flask import Flask
app = Flask(__name__)
@app.get("/healthz")
def healthz(): return "well"
@app.get("/")
def page(): return "a foreign app"
"""


def build_wheel(folder):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_jobrunner_alone(tmp_path):
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"jobrunner"}
    assert "jobrunner/py.typed" in names
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("METADATA"))).decode()
    required = [
        line.split()[1] for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line
    ]
    assert sorted(word.split(">")[0] for word in required) == ["boto3", "click", "structlog"]
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel]
    subprocess.run(pip, check=True)
    probe = "import jobrunner, jobrunner.worker.runner; print(jobrunner.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
    )
    assert str(installed) in done.stdout


@pytest.mark.timeout(180)
def test_an_app_that_is_not_the_demo_is_built_and_runs_as_the_page_says(tmp_path, elasticmq_url, make_queue):
    """The page's files, its requirements and its Dockerfile, line by line, without an engine and without root."""
    app, run_dir = tmp_path / "app", Path(tempfile.mkdtemp(prefix="box-"))  # short: a socket's path has 107 characters
    app.mkdir()
    build_wheel(app)
    shutil.copytree(ROOT / "deploy", app / "deploy")
    files = {"shop/web.py": WEB, "jobs/__init__.py": "", "jobs/hello.py": "def greet(name): print('hello', name)\n"}
    files["requirements.txt"] = next(text for text in pages.blocks(PAGE, "text") if text.startswith("flask"))
    for name, text in files.items():
        (app / name).parent.mkdir(exist_ok=True)
        (app / name).write_text(text)
    venv = tmp_path / "venv"
    image = {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", venv], check=True)
    for word, rest in dockerfile():
        if word == "COPY" and rest != ". .":
            assert all((app / name).is_file() for name in rest.split()[:-1]), rest
        elif word == "ENV":
            image |= dict(pair.split("=", 1) for pair in rest.split())
        elif word == "RUN" and rest.startswith("pip "):
            command = rest.replace("pip", f"{sys.executable} -m uv pip", 1).replace(
                "--no-cache-dir", f"--python {venv}"
            )
            subprocess.run(shlex.split(command), check=True, cwd=app)
        elif word == "RUN" and rest.startswith("python "):
            subprocess.run(shlex.split(rest.replace("/app", str(app))), check=True, cwd=app, env=image)
        elif word == "RUN":
            assert rest.split()[0] in ("useradd", "ln"), "these need root"
    queue_url = make_queue(elasticmq_url)
    image |= {"APP_DIR": str(app), "RUN_DIR": str(run_dir), "PORT": str(free_port())}
    task = {"JOBRUNNER_QUEUE_URL": queue_url, "JOBRUNNER_WAIT_SECONDS": "2", "AWS_DEFAULT_REGION": "us-east-1"}
    task |= {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    runs_as_shown(app, image, {**image, **task}, queue_url)


def dockerfile():
    (text,) = pages.blocks(PAGE, "dockerfile")
    return re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE)


def answer(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.read()
    except OSError:
        return None


def runs_as_shown(app, image, environment, queue_url):
    """Start it as its CMD does; see web, worker, health check, supervisorctl and the stop."""
    found = dict(dockerfile())
    log = app.parent / "log.txt"
    how = {"cwd": app, "env": environment, "stderr": subprocess.STDOUT, "start_new_session": True}
    process = subprocess.Popen(json.loads(found["CMD"]), stdout=subprocess.PIPE, **how)
    with log.open("w") as file:
        cat = subprocess.Popen(["cat"], stdin=process.stdout, stdout=file)
    process.stdout.close()
    try:
        enqueue("hello.greet", {"name": "Ada"}, queue_url=queue_url)
        wait_for(lambda: '"event":"job.done"' in log.read_text(), 40, log.read_text)
        assert "hello Ada" in log.read_text()
        url = f"http://127.0.0.1:{environment['PORT']}/"
        assert wait_for(lambda: answer(url), 30, log.read_text) == b"a foreign app"
        health = json.loads(found["HEALTHCHECK"].split("CMD ")[1])
        subprocess.run(health, check=True, cwd=app, env=environment)
        ctl = ["supervisorctl", "-c", app / "deploy" / "supervisord.conf", "status"]
        status = subprocess.run(ctl, check=False, capture_output=True, text=True, env=image).stdout
        assert "jobrunner:jobrunner_00" in status, "with no more than the image's own variables"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
        cat.wait(20)
        assert not lines.faults_in(log.read_text())
