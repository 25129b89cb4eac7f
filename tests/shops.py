"""A framework's page done as it says: its app, its web server and its workers, with a database."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import django
import pages
from servers import ROOT, free_port

SERVERS = {
    "flask": "gunicorn --preload --workers 2 --bind 127.0.0.1:{port} web.app:app",
    "django": "gunicorn --bind 127.0.0.1:{port} shop.wsgi",
    "async": "uvicorn --port {port} web.app:app",
}
#: The job that an order sends.
METHODS = {"flask": "orders.ship", "django": "shop.tasks.ship", "async": "orders.ship"}


class Shop:
    """What a page leaves out of its app is in tests/apps."""

    def __init__(self, framework, app, postgres):
        self.page = (ROOT / "docs" / f"{framework}.md").read_text()
        self.app = app
        self.postgres = postgres
        self.method = METHODS[framework]
        (app.folder / "jobs.py").unlink()
        shutil.copytree(ROOT / "tests" / "apps" / framework, app.folder, dirs_exist_ok=True)
        for name, text in pages.files(self.page).items():
            self._write(name, text)
        self.env = {
            "PYTHONPATH": str(app.folder),
            "JOBRUNNER_QUEUE_URL": app.queue_url,
            "DATABASE_PORT": str(postgres.port),
            "DATABASE_URL": f"postgresql+psycopg://{postgres.address}",
            "FLASK_SQLALCHEMY_DATABASE_URI": f"postgresql+psycopg://{postgres.address}",
        }
        self.options = {"cwd": app.folder, "env": {**os.environ, **self.env}}
        self.run("create_tables.py")
        self.port = free_port()
        program, *words = SERVERS[framework].format(port=self.port).split()
        self.web = subprocess.Popen([Path(sys.executable).parent / program, *words], **self.options)

    def _write(self, name, text):
        if django.VERSION < (6,):
            text = text.replace("django.tasks", "django_tasks")  # as the page says
        file = self.app.folder / name
        self.app.write(name, (file.read_text() if file.name == "settings.py" else "") + text)

    def run(self, *words, **more):
        """Run one of the app's Python programs to its end."""
        return subprocess.run([sys.executable, *words], check=True, text=True, **self.options, **more)

    def consume(self, *words, told=True, **env):
        """Start a worker as the page tells it; PostgreSQL knows it as "worker"."""
        of_page = pages.told(self.page) if told else []
        return self.app.consume(*words, *of_page, env={**self.env, "PGAPPNAME": "worker", **env})

    def order(self, number, path="orders"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}/{number}", method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 202

    def is_up(self):
        assert self.web.poll() is None, "the web server ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def shipped(self):
        return [number for (number,) in self.postgres.ask('SELECT number FROM "order" WHERE shipped ORDER BY number')]

    def stop(self):
        self.web.terminate()
        self.web.wait(60)
