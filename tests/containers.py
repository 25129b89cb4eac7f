"""The shipped container without a container: deploy/start.py, supervisord, web and workers."""

import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import lines
from servers import ROOT, free_port, wait_for

BIN = Path(sys.executable).parent


class Container:
    """What the image would run, outside of one."""

    def __init__(self, folder, queue_url, **env):
        self.folder = folder
        self.port = free_port()
        self.run_dir = Path(tempfile.mkdtemp(prefix="box-"))  # short: a socket's path has 107 characters
        self.env = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RUN_DIR": str(self.run_dir),
            "PORT": str(self.port),
            "DEMO_DATA": str(folder / "data"),
            "JOBRUNNER_QUEUE_URL": queue_url,
            "JOBRUNNER_LOG_FORMAT": "json",
            "AWS_ENDPOINT_URL_SQS": queue_url.rsplit("/", 2)[0],
            "JOBRUNNER_WAIT_SECONDS": "2",
            **env,
        }
        self.log = folder / "stdout.txt"
        # Through a pipe, as Docker reads it: a plain file would be written over from its start.
        command = [sys.executable, ROOT / "deploy" / "start.py"]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
        self.process = subprocess.Popen(command, env=self.env, **pipe)
        with self.log.open("w") as log:
            self.cat = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=log)
        self.process.stdout.close()

    def ctl(self, *words):
        command = [BIN / "supervisorctl", "-c", ROOT / "deploy" / "supervisord.conf", *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=self.env).stdout

    def pid(self):
        return int((self.run_dir / "supervisord.pid").read_text())

    def answers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait_until_up(self):
        wait_for(lambda: self.answers() and "worker.ready" in self.log.read_text(), 30, self.log.read_text)
        return self

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(30)
        self.cat.wait(30)
        assert not lines.faults_in(self.log.read_text())

    def worker_pids(self):
        """Find the workers by their command line."""
        found = subprocess.run(
            ["pgrep", "-f", f"consume --app-dir {self.env.get('APP_DIR', ROOT)} --status-file {self.run_dir}"],
            check=False,
            capture_output=True,
            text=True,
        )
        return [int(word) for word in found.stdout.split()]
