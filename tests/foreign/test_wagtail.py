"""A project that nobody here wrote: Wagtail's start template, with two tasks added, in the shipped container's way.

`make foreign` installs what it needs in an environment of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from containers import Container
from databases import Postgres
from servers import ROOT, ElasticMQ, counts, make_queue, wait_for

BIN = Path(sys.executable).parent
TASKS = 200
NOTES = """
import time
from django_tasks import task
from home.models import HomePage

@task
def retitle(number):
    time.sleep(0.05)
    page = HomePage.objects.get()
    note(f"{page.title} {number}")

@task
async def count(number):
    note(f"{await HomePage.objects.acount()} page {number}")

def note(text):
    with open("notes.txt", "a") as file:
        file.write(text + "\\n")
"""
SETTINGS = """
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres",
                          "HOST": "127.0.0.1", "PORT": "{port}", "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}}}}
TASKS = {{"default": {{"BACKEND": "jobrunner.django.SQSBackend"}}}}
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS += ["django.contrib.postgres"]
"""


@pytest.fixture(scope="module")
def postgres():
    server = Postgres().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def elasticmq(tmp_path_factory):
    server = ElasticMQ(tmp_path_factory.mktemp("elasticmq")).start()
    yield server
    server.kill()


@pytest.fixture
def site(tmp_path, postgres, elasticmq):
    """The template's site, with its own way of configuring, in a container's place."""
    subprocess.run([BIN / "wagtail", "start", "mysite", tmp_path], check=True)
    with (tmp_path / "mysite" / "settings" / "base.py").open("a") as file:
        file.write(SETTINGS.format(port=postgres.port))
    (tmp_path / "home" / "tasks.py").write_text(NOTES)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    url = make_queue(elasticmq.url, "wagtail", visibility_seconds=20)
    env = {**os.environ, "JOBRUNNER_QUEUE_URL": url, "AWS_ENDPOINT_URL_SQS": elasticmq.url}
    manage = [sys.executable, "manage.py"]
    for words in (["migrate", "--verbosity", "0"], ["check"]):
        subprocess.run([*manage, *words], check=True, cwd=tmp_path, env=env)
    box = Container(
        tmp_path,
        url,
        APP_DIR=str(tmp_path),
        WEB_APP="mysite.wsgi:application",
        HEALTH_PATH="/",
        DJANGO_SETTINGS_MODULE="mysite.settings.dev",
        JOBRUNNER_DJANGO="mysite.settings.dev",
    )
    box.shell = lambda code: subprocess.run([*manage, "shell", "-c", code], check=True, cwd=tmp_path, env=env)
    wait_for(lambda: "worker.ready" in box.log.read_text(), 60, box.log.read_text)
    yield box
    box.stop()


def test_tasks_of_the_site_and_of_wagtail_run_and_a_restart_under_load_loses_none(site):
    url = site.env["JOBRUNNER_QUEUE_URL"]
    send = f"from home.tasks import *\nfor n in range({TASKS}):\n    retitle.enqueue(n), count.enqueue(n)"
    site.shell(send)
    time.sleep(1)
    assert "started" in site.ctl("restart", "jobrunner:*")
    # Saving a page has Wagtail send its own task, which keeps the index of references.
    site.shell("from home.models import HomePage; HomePage.objects.get().save_revision().publish()")
    wait_for(lambda: counts(url) == (0, 0, 0), 120, lambda: f"{counts(url)} {site.log.read_text()[-3000:]}")
    lines = (site.folder / "notes.txt").read_text().splitlines()
    assert {int(line.split()[-1]) for line in lines if line.startswith("Home")} == set(range(TASKS))
    assert {int(line.split()[-1]) for line in lines if " page " in line} == set(range(TASKS))
    assert counts(url, dead=True) == (0, 0, 0)
    written = [json.loads(line) for line in site.log.read_text().splitlines()]
    done = Counter(line["method"] for line in written if line["event"] == "job.done")
    print("done:", dict(done))
    assert {name.split(".")[0] for name in done} >= {"home", "wagtail"}
