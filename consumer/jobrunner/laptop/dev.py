"""Everything on a laptop: an embedded SQS (moto's server), the consumer, and the web app; main thread."""

import json
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from jobrunner.errors import SettingsError
from jobrunner.laptop.reload import PROGRAM
from jobrunner.operate.rules import RETENTION_SECONDS_MAX
from jobrunner.queue.endpoint import Endpoint

#: As our shipped queues have it; short visibility, so that a killed worker's jobs are seen again soon.
ATTEMPTS_MAX = 10
VISIBILITY_SECONDS = 30
LOOK_SECONDS = 0.1
#: Longer than a worker's own stop.
STOP_SECONDS = 4.0


def run(*, module: str, app_dir: Path, port: int, command: Sequence[str]) -> int:
    """Run until Ctrl-C or until COMMAND ends; returns its exit code."""
    if command and not shutil.which(command[0]):
        raise SettingsError(f"COMMAND: there is no program {command[0]!r} on the PATH")
    with embedded_sqs(port) as environment:
        click.echo(f"embedded SQS: {environment['JOBRUNNER_QUEUE_URL']}\nfor another terminal:\n")
        for name, value in environment.items():
            click.echo(f"  export {name}={shlex.quote(value)}")
        click.echo('  jobrunner enqueue METHOD \'{"name": "value"}\'   # METHOD: see jobrunner methods\n')
        worker = [*PROGRAM, "consume", "--reload", "--module", module, "--app-dir", str(app_dir)]
        # moto goes on with the long poll of a worker that has ended, and gives it what comes next.
        shared = {"JOBRUNNER_WAIT_SECONDS": "1", **os.environ, **environment}
        helpers = []
        if list(app_dir.glob(f"{module.replace('.', '/')}/crons.toml")) or (app_dir / "crons.toml").exists():
            helpers.append([*PROGRAM, "crons", "run", "--reload", "--module", module, "--app-dir", str(app_dir)])
        return _run_all([worker, list(command)] if command else [worker], helpers, shared)


@contextmanager
def embedded_sqs(port: int = 0) -> Iterator[dict[str, str]]:
    """Run an SQS of our own with a queue and its dead-letter queue; gives the environment that leads there."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        raise SettingsError(
            "the embedded SQS is not installed: pip install 'jobrunner-sqs[dev]'. "
            "Or run ElasticMQ and `jobrunner consume` against it"
        ) from None
    _check_port(port)
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # else a line a request, and a stack for what moto lacks
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        environment = {
            "AWS_ENDPOINT_URL_SQS": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        os.environ.update(environment)  # for our own client as for the children
        environment["JOBRUNNER_QUEUE_URL"] = _create_queues(address)
        yield environment
    finally:
        server.stop()


def _check_port(port: int) -> None:
    """Raise SettingsError for a port that is taken: moto's server would wait for it without a word."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(f"--port {port}: {error.strerror}. Leave --port out for a free one") from None


def _create_queues(address: str) -> str:
    client = Endpoint(address).client(read_seconds=10, attempts=1, connections=1, connect_seconds=10)
    # Longer than the queue's own: a dead letter keeps the age it had.
    dead = client.create_queue(
        QueueName="jobs-dead", Attributes={"MessageRetentionPeriod": str(RETENTION_SECONDS_MAX)}
    )["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": ATTEMPTS_MAX})
    attributes = {"VisibilityTimeout": str(VISIBILITY_SECONDS), "RedrivePolicy": redrive}
    url: str = client.create_queue(QueueName="jobs", Attributes=attributes)["QueueUrl"]
    return url


def _run_all(commands: Sequence[Sequence[str]], helpers: Sequence[Sequence[str]], environment: dict[str, str]) -> int:
    """Run programs side by side until one that is no helper ends, or a signal comes; then end the others."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    children = [subprocess.Popen(command, env=environment) for command in [*commands, *helpers]]
    while not received and all(child.poll() is None for child in children[: len(commands)]):
        time.sleep(LOOK_SECONDS)
    ended = next((child.returncode for child in children[: len(commands)] if child.returncode is not None), 0)
    if not received:
        click.echo(f"ended with {abs(ended)}: stopping the rest")
    if signal.SIGINT not in received:  # Ctrl-C has reached the children by itself: a second one would cut them off
        _terminate(children)
    deadline = time.monotonic() + STOP_SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    _terminate(children)
    for child in children:
        child.wait()
    return 0 if received else abs(ended)


def _terminate(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
