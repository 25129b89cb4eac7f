"""docs/flask.md, django.md and async.md, done as they say: real frameworks and servers, a real PostgreSQL.

What a page leaves out of its app is in tests/apps.
"""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pages
import psutil
import pytest
from servers import ROOT, free_port, wait_for

pytestmark = pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True)

SERVERS = {
    "flask": "gunicorn --preload --workers 2 --bind 127.0.0.1:{port} web.app:app",
    "django": "gunicorn --bind 127.0.0.1:{port} shop.wsgi",
    "async": "uvicorn --port {port} web.app:app",
}
of_each = pytest.mark.parametrize("shop", SERVERS, indirect=True)


class Shop:
    """A page's app with its database, its web server and its workers."""

    def __init__(self, framework, app, postgres):
        self.page = (ROOT / "docs" / f"{framework}.md").read_text()
        self.app = app
        self.postgres = postgres
        (app.folder / "jobs.py").unlink()
        shutil.copytree(ROOT / "tests" / "apps" / framework, app.folder, dirs_exist_ok=True)
        for name, text in pages.files(self.page).items():
            app.write(name, text)
        self.env = {
            "PYTHONPATH": str(app.folder),
            "JOBRUNNER_QUEUE_URL": app.queue_url,
            "DATABASE_PORT": str(postgres.port),
            "DATABASE_URL": f"postgresql+psycopg://{postgres.address}",
            "FLASK_SQLALCHEMY_DATABASE_URI": f"postgresql+psycopg://{postgres.address}",
        }
        options = {"cwd": app.folder, "env": {**os.environ, **self.env}}
        subprocess.run([sys.executable, "create_tables.py"], check=True, **options)
        self.port = free_port()
        program, *words = SERVERS[framework].format(port=self.port).split()
        self.web = subprocess.Popen([Path(sys.executable).parent / program, *words], **options)

    def consume(self, *words, around=True, **env):
        """Start a worker with the page's --around; PostgreSQL knows it as "worker"."""
        arounds = pages.around(self.page) if around else []
        return self.app.consume(*words, *arounds, env={**self.env, "PGAPPNAME": "worker", **env})

    def order(self, number):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/orders/{number}", method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 202

    def is_up(self):
        assert self.web.poll() is None, "the web server ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def shipped(self):
        return [number for (number,) in self.postgres.ask('SELECT number FROM "order" WHERE shipped ORDER BY number')]


@pytest.fixture
def shop(request, app, postgres):
    shop = Shop(request.param, app, postgres)
    try:
        wait_for(shop.is_up, 20, "the web server")
        yield shop
    finally:
        shop.web.terminate()
        shop.web.wait(20)


@of_each
def test_a_request_becomes_a_job_also_after_the_database_dropped_every_connection(shop):
    worker = shop.consume("--threads", 1)
    shop.order(1)
    worker.wait("job.done", method="orders.ship")
    assert "worker" in shop.postgres.clients(), "it keeps its connection"
    shop.postgres.drop_connections()
    shop.order(2)
    worker.wait("job.done", 2, method="orders.ship")
    assert shop.shipped() == [1, 2]
    assert not worker.named("job.failed")
    assert worker.stop()[0] == 0


@pytest.mark.parametrize("shop", ["django"], indirect=True)
def test_without_its_context_manager_a_dropped_connection_fails_job_after_job(shop):
    worker = shop.consume("--threads", 1, around=False)
    shop.order(1)
    worker.wait("job.done", method="orders.ship")
    shop.postgres.drop_connections()
    shop.order(2)
    shop.order(3)
    failed = worker.wait("job.failed", 3)
    assert {line["attempt"] for line in failed} == {1, 2}
    assert shop.shipped() == [1]


@pytest.mark.parametrize("shop", ["django"], indirect=True)
def test_without_conn_max_age_a_connection_ends_with_its_job(shop):
    worker = shop.consume(CONN_MAX_AGE="0")
    shop.order(1)
    (done,) = worker.wait("job.done", method="orders.ship")
    assert worker.named("shipping 1", job_id=done["job_id"], logger="shop"), (
        "Django's logging leaves the worker's alone"
    )
    wait_for(lambda: "worker" not in shop.postgres.clients(), what="the end of the job's connection")


@pytest.mark.parametrize("shop", ["flask"], indirect=True)
def test_what_a_failed_job_did_not_commit_is_rolled_back(shop):
    worker = shop.consume("--threads", 1)
    shop.app.enqueue(("more.fail_half_way", [1]))
    worker.wait("job.failed", method="more.fail_half_way")
    assert shop.shipped() == []
    worker.wait("job.done", method="more.fail_half_way")
    assert shop.shipped() == [1]


@pytest.mark.parametrize("shop", ["flask"], indirect=True)
def test_a_forked_web_server_shares_no_client(shop):
    def ports(process):
        """Give the local ports of a process's connections to SQS."""
        remote = int(shop.app.queue_url.split(":")[2].split("/")[0])
        return {line.laddr.port for line in process.net_connections() if line.raddr and line.raddr.port == remote}

    def own_ports():
        """Have both forked processes send; give the ports that each does not have from its parent."""
        shop.order(next(numbers))
        found = [ports(child) - ports(master) for child in master.children()]
        return len(found) == 2 and all(found) and found

    numbers = iter(range(2, 1_000))
    worker = shop.consume()
    worker.wait("job.done", method="more.ready")
    shop.order(1)
    master = psutil.Process(shop.web.pid)
    one, other = wait_for(own_ports, 20, "a connection of its own in each forked process")
    assert not one & other
    worker.wait("job.done", next(numbers) - 1, method="orders.ship")


@pytest.mark.parametrize("shop", ["async"], indirect=True)
def test_async_jobs_share_one_engine(shop):
    worker = shop.consume("--threads", 5)
    shop.app.enqueue(*[("more.ask", [])] * 40)
    worker.wait("job.done", 40)
    backends = {line["pid"] for line in worker.named("asked")}
    assert 1 < len(backends) <= 5, "the pool's five, used again and again"
