"""A real PostgreSQL of the test's own, which can drop its connections."""

import getpass
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
from servers import NotHere, free_port, wait_for

START_SECONDS = 30
STOP_SECONDS = 20
OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


class Postgres:
    """A server on a port of its own, in memory as far as it will; `stop` leaves nothing behind."""

    def __init__(self):
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        self.port = free_port()
        self.address = f"postgres@127.0.0.1:{self.port}/postgres"
        self.process = None

    def start(self):
        initdb, postgres = program("initdb"), program("postgres")
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        shutil.chown(self.folder, self.user)
        try:
            self._start(initdb, postgres)
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self, initdb, postgres):
        options = {"user": self.user, "cwd": self.folder, "env": {"PATH": os.environ["PATH"]}}
        create = [initdb, "-D", "data", "-U", "postgres", "-E", "UTF8", "--auth=trust", "--no-sync"]
        done = subprocess.run(create, check=False, capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stderr
        self._serve(postgres, options)

    def _serve(self, postgres, options):
        where = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-k", ""]
        with (self.folder / "log").open("w") as log:
            command = [postgres, "-D", "data", "-F", *where]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        wait_for(self.answers, START_SECONDS, lambda: f"PostgreSQL:\n{(self.folder / 'log').read_text()}")

    def answers(self):
        try:
            return self.ask("SELECT 1")
        except psycopg.OperationalError:
            return False

    def ask(self, query):
        """Run one statement; gives its rows, if it has any."""
        with psycopg.connect(f"postgresql://{self.address}", autocommit=True) as connection:
            found = connection.execute(query)
            return found.fetchall() if found.description else []

    def clients(self):
        """Give the application_name of each connection but the asking one."""
        return [name for (name,) in self.ask(f"SELECT application_name {OTHERS}")]

    def drop_connections(self):
        """End every connection but the asking one."""
        self.ask(f"SELECT pg_terminate_backend(pid, 5000) {OTHERS}")

    def restart(self):
        """As a machine that loses its power and comes back."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self._serve(program("postgres"), {"user": self.user, "cwd": self.folder, "env": {"PATH": os.environ["PATH"]}})

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)  # SIGTERM would wait for every client to leave first
            self.process.wait(STOP_SECONDS)
        shutil.rmtree(self.folder)


def program(name):
    """Find one of PostgreSQL's programs, also where Debian puts them."""
    for folder in ["", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]:
        if found := shutil.which(name, path=folder or None):
            return found
    raise NotHere("needs PostgreSQL's initdb and postgres on this machine")
