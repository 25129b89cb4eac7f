"""Real processes against real servers, on an app written for the test."""

import textwrap

import pytest
from databases import Postgres
from proxy import Proxy
from servers import counts, skipping_what_is_not_here, wait_for
from shops import Shop
from workers import Worker

from jobrunner import enqueue_many

JOBS = """
import asyncio, logging, os, time
from pathlib import Path
log = logging.getLogger("app")
HERE = Path(__file__).parent
def noop(): pass
def note(name):
    with (HERE / "notes.txt").open("a") as notes:
        notes.write(name + "\\n")
def nap(seconds, name="nap"):
    note(f"start {name}")
    time.sleep(seconds)
    note(f"end {name}")
async def anap(seconds, name=None):
    if name:
        note(f"start {name}")
    await asyncio.sleep(seconds)
def fail(): raise ValueError("boom")
def fail_once(name):
    path = HERE / f"failed-{name}"
    if not path.exists():
        path.touch()
        raise ValueError("the first time")
"""


class App:
    """A directory with a jobs module, and the workers that run on it."""

    def __init__(self, folder, queue_url):
        self.folder = folder
        self.queue_url = queue_url
        self.workers = []
        self.write_jobs()

    def write_jobs(self, more=""):
        """Write the jobs that every test may use, and more."""
        self.write("jobs.py", JOBS + more)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def consume(self, *words, **options):
        base = ["consume", "--queue-url", self.queue_url, "--app-dir", self.folder, "--wait-seconds", 2]
        return self.run(*base, *words, **options)

    def run(self, *words, **options):
        # A temporary folder of its own: the dead-man's dumps in it are this test's.
        env = {"TMPDIR": str(self.folder), **options.pop("env", {})}
        worker = Worker(*words, env=env, **options)
        self.workers.append(worker)
        return worker

    def enqueue(self, *calls):
        return enqueue_many(calls, queue_url=self.queue_url)

    def notes(self):
        path = self.folder / "notes.txt"
        return path.read_text().splitlines() if path.exists() else []

    def counts(self, **which):
        return counts(self.queue_url, **which)

    def wait_until_empty(self, seconds=60):
        wait_for(lambda: self.counts() == (0, 0, 0), seconds, lambda: f"an empty queue, not {self.counts()}")


@pytest.fixture
def app(tmp_path, server_url, make_queue):
    app = App(tmp_path, make_queue(server_url))
    yield app
    for worker in app.workers:
        worker.kill()


@pytest.fixture
def proxy(server_url):
    """Stands before the server, and fails as it is told."""
    between = Proxy(server_url)
    yield between
    between.end_faults()
    between.refuse()


@pytest.fixture
def shop(request, app, postgres):
    shop = Shop(request.param, app, postgres)
    try:
        wait_for(shop.is_up, what="the web server")
        yield shop
    finally:
        shop.stop()


@pytest.fixture(scope="session")
def postgres_server():
    with skipping_what_is_not_here():
        server = Postgres().start()
    yield server
    server.stop()


@pytest.fixture
def postgres(postgres_server):
    """One server for all, empty for each."""
    yield postgres_server
    postgres_server.drop_connections()
    postgres_server.ask("DROP SCHEMA public CASCADE")
    postgres_server.ask("CREATE SCHEMA public")
