"""Everything on a laptop: an embedded SQS, a consumer for each queue, the crons, and the web app; main thread."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from jobrunner.crons.file import FILE
from jobrunner.crons.later_ticker import LaterTicker
from jobrunner.errors import SettingsError
from jobrunner.laptop.embedded import embedded_sqs
from jobrunner.laptop.reload import PROGRAM
from jobrunner.queue.schedules import Place, Schedules
from jobrunner.settings import check_around

LOOK_SECONDS = 0.1
#: Longer than a worker's own stop.
STOP_SECONDS = 4.0
QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,75}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Laptop:
    """What `jobrunner dev` was told."""

    module: str
    app_dir: Path
    django: str | None
    around: str | None
    crons: Path | None
    port: int
    queues: Sequence[str]
    attempts_max: int
    command: Sequence[str]

    def __post_init__(self) -> None:
        """Check what can be checked before anything runs."""
        if self.command and not shutil.which(self.command[0]):
            raise SettingsError(f"COMMAND: there is no program {self.command[0]!r} on the PATH")
        if self.around:
            check_around(self.around)
        for name in self.queues:
            if not QUEUE_NAME.fullmatch(name):
                raise SettingsError(f"--queue {name!r} is not 1 to 75 letters, digits, - and _")
        names = {*self.queues, *(f"{name}-dead" for name in self.queues), *map(_variable, self.queues)}
        if len(names) < 3 * len(self.queues):
            raise SettingsError(
                f"--queue {', '.join(self.queues)}: each wants a name, a variable and a NAME-dead of its own"
            )

    def variables(self, urls: Sequence[str]) -> dict[str, str]:
        """Give the variables that tell others of our own what we were told; a name for each further queue."""
        told = {"JOBRUNNER_QUEUE_URL": urls[0]}
        for name, url in list(zip(self.queues, urls, strict=True))[1:]:
            told[_variable(name)] = url
        further = {
            "MODULE": self.module,
            "APP_DIR": self.app_dir,
            "DJANGO": self.django,
            "AROUND": self.around,
            "CRONS": self.crons and self.crons.resolve(),
        }
        return told | {f"JOBRUNNER_{name}": str(value) for name, value in further.items() if value}

    def crons_file(self) -> Path:
        """Say where the schedule file is looked for: beside the module."""
        module = self.app_dir / self.module.replace(".", "/")
        return self.crons or (module if module.is_dir() else module.parent) / FILE

    def misplaced_crons(self) -> Path | None:
        """Find a schedule file where none is looked for, while there is none where there should be one."""
        wanted = self.crons_file()
        if wanted.exists():
            return None
        places = [self.app_dir / FILE, *self.app_dir.glob(f"*/{FILE}")]
        return next((place for place in places if place != wanted and place.exists()), None)


def _variable(queue: str) -> str:
    return f"JOBRUNNER_QUEUE_URL_{queue.upper().replace('-', '_')}"


def run(laptop: Laptop) -> int:
    """Run until Ctrl-C or until COMMAND ends; returns its exit code."""
    programs = Programs()
    with embedded_sqs(laptop.port, laptop.queues, laptop.attempts_max) as (aws, urls):
        printed = {**aws, **laptop.variables(urls)}
        with _to_source(printed) as file:
            _say(printed, file)
            # moto goes on with the long poll of a worker that has ended, and gives it what comes next.
            environment = {"JOBRUNNER_WAIT_SECONDS": "1", **os.environ, **printed, "JOBRUNNER_DEV": "1"}
            place = ["--module", laptop.module, "--app-dir", str(laptop.app_dir)]
            for url in urls:
                programs.start([*PROGRAM, "consume", "--reload", *place, "--queue-url", url], environment)
            schedules = Schedules(place=Place.told(aws), queue_url=urls[0], read_seconds=5)
            schedules.make_group()
            later = LaterTicker(schedules=schedules, queue_urls=urls)
            later.start()
            if laptop.command:
                path = os.pathsep.join(filter(None, [str(laptop.app_dir), environment.get("PYTHONPATH")]))
                programs.start(laptop.command, {**environment, "PYTHONPATH": path})
            no_later = {**environment, "JOBRUNNER_LATER_GROUP": ""}  # those are fired here, once
            code = programs.wait(laptop, [*PROGRAM, "crons", "run", "--reload", *place], no_later)
            later.stop()
            return code


def _say(printed: Mapping[str, str], file: str) -> None:
    click.echo(f"embedded SQS: {printed['JOBRUNNER_QUEUE_URL']}\nfor another terminal:\n")
    for name, value in printed.items():
        click.echo(f"  export {name}={shlex.quote(value)}")
    click.echo(f"  source {file}   # all of these at once")
    click.echo('  jobrunner enqueue METHOD \'{"name": "value"}\'   # METHOD: see jobrunner methods\n')


@contextmanager
def _to_source(printed: Mapping[str, str]) -> Iterator[str]:
    """Write the lines to paste into a file as well, for as long as this runs."""
    with tempfile.NamedTemporaryFile("w", prefix="jobrunner-dev-", suffix=".sh") as file:
        file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in printed.items())
        file.flush()
        yield file.name


class Programs:
    """Runs programs side by side until one of them ends, or a signal comes; then ends the others."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._received: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start one more, unless all is to end: it would never hear of it."""
        if not self._received:
            self._children.append(subprocess.Popen(command, env=environment))

    def wait(self, laptop: Laptop, crons: Sequence[str], environment: Mapping[str, str]) -> int:
        """Wait for the end, and start the crons once their file is there; returns the exit code that counts."""
        asked = list(self._children)
        told: set[Path | None] = {None}
        while not self._received and all(child.poll() is None for child in asked):
            # Where it is looked for may change: the jobs' folder may come later than we.
            if len(self._children) == len(asked) and (file := laptop.crons_file()).exists():
                self.start([*crons, "--crons", str(file)], environment)  # it says itself what is wrong with its file
            if (other := laptop.misplaced_crons()) not in told:
                told.add(other)
                click.echo(f"crons: {other} is not used: it belongs at {file}, or name it with --crons")
            time.sleep(LOOK_SECONDS)
        ended = next((child.returncode for child in asked if child.returncode is not None), 0)
        if not self._received:
            click.echo(f"ended with {abs(ended)}: stopping the rest")
        self._stop()
        return 0 if self._received else abs(ended)

    def _stop(self) -> None:
        if signal.SIGINT not in self._received:  # Ctrl-C has reached them by itself: a second one would cut them off
            self._terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while any(child.poll() is None for child in self._children) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        self._terminate()
        for child in self._children:
            child.wait()

    def _terminate(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.terminate()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(number)
