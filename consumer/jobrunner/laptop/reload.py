"""Development only: runs a command of ours as a child, again when code changes; main thread of a parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import click

from jobrunner.errors import ExitCode

#: The program without the directory that it runs in: that may hold files of our names.
PROGRAM = (sys.executable, "-P", "-m", "jobrunner")
LOOK_SECONDS = 0.3
RESTART_SECONDS = 1.0


def run_again_on_change(app_dir: Path) -> NoReturn:
    """Run this command line without --reload, again and again, until a signal."""
    arguments = [word for word in sys.argv[1:] if word != "--reload"]
    received: list[int] = []  # whenever a signal comes, also between two children
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.append(number))
    code = 0
    while not received:
        seen = _snapshot(app_dir)
        child = subprocess.Popen([*PROGRAM, *arguments], env={**os.environ, "JOBRUNNER_RELOAD": ""})
        while child.poll() is None and not received and _snapshot(app_dir) == seen:
            time.sleep(LOOK_SECONDS)
        if child.poll() is None and signal.SIGINT not in received:  # a terminal sends SIGINT to the child itself
            child.terminate()
        code = child.wait()
        # Broken code stays broken until somebody saves a file; all else deserves a fresh start.
        if code in (ExitCode.APP, ExitCode.SETTINGS) and not received:
            click.echo(f"waiting for a change of the code in {app_dir}")
        while code in (ExitCode.APP, ExitCode.SETTINGS) and not received and _snapshot(app_dir) == seen:
            time.sleep(LOOK_SECONDS)
        if code and not received:
            time.sleep(RESTART_SECONDS)
    sys.exit(max(code, 0))


def _snapshot(app_dir: Path) -> dict[Path, int]:
    """Give the change times of the app's code; hidden folders and virtual environments are not the app's."""
    times = {}
    for folder, names, files in os.walk(app_dir):
        names[:] = [n for n in names if not n.startswith(".") and n not in ("__pycache__", "node_modules", "venv")]
        for name in files:
            if name.endswith((".py", ".toml")):
                path = Path(folder, name)
                try:
                    times[path] = path.stat().st_mtime_ns
                except FileNotFoundError:  # an editor's draft, gone again
                    continue
    return times
