"""Real `jobrunner` processes for tests: their lines read as they come, their end waited for."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import lines
from servers import wait_for

PROGRAM = [sys.executable, "-P", "-m", "jobrunner"]


class Worker:
    """A `jobrunner` command; by default `consume` on an app directory."""

    def __init__(self, *words, env=None, cwd=None, **popen):
        self.lines = []
        self.other = []
        self.faults = []
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, words)],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pipesize=1 << 20,  # room for thousands of lines: a worker drops what a starved reader leaves unread
            **popen,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            try:
                found = json.loads(line)
            except ValueError:
                self.other.append(line)
            else:
                self.faults += lines.faults_of(found)
                self.lines.append(found)
        self.process.stdout.close()

    def named(self, event, **having):
        return [
            line
            for line in list(self.lines)
            if line.get("event") == event and all(line.get(key) == value for key, value in having.items())
        ]

    def wait(self, event, count=1, seconds=120, **having):
        """Wait for so many lines of a kind; returns them."""
        return wait_for(
            lambda: len(self.named(event, **having)) >= count and self.named(event, **having),
            seconds,
            lambda: f"{count} x {event} {having}, {len(self.named(event, **having))} by now, in\n{self}",
        )

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def end(self, seconds=60):
        """Wait for the end; returns the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        assert not self.faults, "lines that docs/events.schema.json does not know"
        return code

    def stop(self):
        """SIGTERM, and how long it took: code and seconds."""
        started = time.monotonic()
        self.signal()
        return self.end(), time.monotonic() - started

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.end()

    def __str__(self):
        return "\n".join([*map(str, self.lines[-40:]), *self.other[-40:]])
