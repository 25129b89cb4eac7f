"""The SQS servers that tests run against: moto's, in this process, a real ElasticMQ, and a MiniStack."""

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import boto3
import pytest

ROOT = Path(__file__).parent.parent
VERSION = "1.7.1"
CACHE = ROOT / ".cache" / f"elasticmq-{VERSION}"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>elasticmq</artifactId><version>1</version>
<dependencies><dependency><groupId>org.elasticmq</groupId><artifactId>elasticmq-server_2.13</artifactId>
<version>{VERSION}</version></dependency></dependencies></project>"""
START_SECONDS = 60


class NotHere(Exception):
    """What a test needs cannot be had on this machine."""


@contextlib.contextmanager
def skipping_what_is_not_here():
    """Skip the test for which something is missing; in CI it fails."""
    try:
        yield
    except NotHere as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A real server of its own program, on a port of its own; `health` is the path that it answers when it is up."""

    name, health = "", "/health"

    def __init__(self, folder, *, port=None):
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def run(self, command, **how):
        path = self.folder / f"{self.name.lower()}.log"
        with path.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **how)
        wait_for(lambda: self.answers(path), START_SECONDS, f"{self.name} on {self.url}, see {path}")
        return self

    def answers(self, path):
        if self.process.poll() is not None:
            raise NotHere(f"{self.name} ended with {self.process.returncode}, see {path}")
        try:
            with urllib.request.urlopen(f"{self.url}{self.health}", timeout=2) as answer:
                return self.is_up(answer)
        except OSError:
            return False

    def is_up(self, _answer):
        return True

    def kill(self):
        self.process.kill()
        self.process.wait()


class ElasticMQ(Server):
    """With the shipped configuration; `start` after `kill` finds its messages again, unless they are in memory.

    `quick` leaves out Java's thorough compiler, which takes half the processor of the first minutes and is worth it
    only where a server is measured or works for long.
    """

    name = "ElasticMQ"

    def __init__(self, folder, *, port=None, in_memory=False, quick=False):
        super().__init__(folder, port=port)
        self.in_memory = in_memory
        self.java = ["java", "-Xmx512m", *(["-XX:TieredStopAtLevel=1"] if quick else [])]

    def start(self):
        shipped = (ROOT / "deploy" / "elasticmq.conf").read_text()
        config = self.folder / "elasticmq.conf"
        here = shipped.replace("port = 9324", f"port = {self.port}").replace("/data/", f"{self.folder}/")
        config.write_text(here.replace("enabled = true, uri", "enabled = false, uri") if self.in_memory else here)
        return self.run([*self.java, f"-Dconfig.file={config}", "-cp", f"{jars()}/*", "org.elasticmq.server.Main"])


#: An environment of its own: it pins its own botocore.
MINISTACK = "1.5.33"
MINISTACK_CACHE = ROOT / ".cache" / f"ministack-{MINISTACK}-{sys.version_info.major}.{sys.version_info.minor}"


class MiniStack(Server):
    """Unlike the others it also fires schedules."""

    name, health = "MiniStack", "/_ministack/health"

    def start(self):
        told = {"GATEWAY_PORT": str(self.port), "BIND_HOST": "127.0.0.1", "TMPDIR": str(self.folder)}
        told |= {"SERVICES": "sqs,scheduler", "LOG_LEVEL": "WARNING"}
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
        return self.run([ministack(), "-m", "ministack"], env=theirs | told, cwd=self.folder)

    def is_up(self, answer):
        return json.load(answer)["services"].get("sqs") == "available"


def filled(cache, fill):
    """Give a folder of the cache, filled the first time, by one of several runs at once."""
    cache.mkdir(parents=True, exist_ok=True)
    with cache.with_name(f"{cache.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "complete").exists():
            fill()
            (cache / "complete").touch()
    return cache


def ministack():
    """Give the Python that has MiniStack, installed the first time."""
    return filled(MINISTACK_CACHE, _install_ministack) / "bin" / "python"


def _install_ministack():
    uv = shutil.which("uv", path=f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}")
    if uv is None:
        raise NotHere("MiniStack is installed by uv, which `make` puts into .venv")
    wanted = ["pip", "install", "--quiet", "--compile-bytecode", "--python", MINISTACK_CACHE, f"ministack=={MINISTACK}"]
    for words in (["venv", "--quiet", "--clear", "--python", sys.executable, MINISTACK_CACHE], wanted):
        done = subprocess.run([uv, *words], check=False, capture_output=True, text=True)
        if done.returncode:
            raise NotHere(f"uv could not install MiniStack: {done.stderr[-500:]}")


def jars():
    """Give the folder with ElasticMQ's jars, resolved with Maven the first time."""
    return filled(CACHE, _resolve_jars)


def _resolve_jars():
    if not (shutil.which("java") and shutil.which("mvn")):
        raise NotHere("ElasticMQ needs java and mvn on this machine")
    (CACHE / "pom.xml").write_text(POM)
    command = ["mvn", "-q", "-B", "-f", CACHE / "pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={CACHE}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NotHere(f"mvn could not resolve ElasticMQ: {done.stdout[-500:]}")


def wait_for(condition, seconds=120, what="the condition"):
    """Wait until a condition holds; returns its value, or fails at the deadline.

    It looks the less often the longer it waits, since most conditions ask a server, and several tests wait at once.
    """
    started = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - started
        if waited > seconds:
            raise AssertionError(f"waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(min(max(waited / 10, 0.05), 0.5))
    return value


@functools.cache
def client_of(server_url):
    """Give one client for all tests of a process: to make one costs more than a hundred requests."""
    return boto3.client("sqs", endpoint_url=server_url, region_name="us-east-1")


def make_queue(server_url, name, *, attempts_max=10, visibility_seconds=30):
    """Make a queue of its own for one test, with its dead letters unless attempts have no end; returns its URL."""
    client = client_of(server_url)
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:50] + f"-{uuid.uuid4().hex[:8]}"
    dead = client.create_queue(QueueName=f"{safe}-dead")["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": attempts_max})
    attributes = {"VisibilityTimeout": str(visibility_seconds)} | ({"RedrivePolicy": redrive} if attempts_max else {})
    return client.create_queue(QueueName=safe, Attributes=attributes)["QueueUrl"]


def counts(queue_url, *, dead=False):
    """Count visible, in flight and delayed messages, as one tuple."""
    url = queue_url + ("-dead" if dead else "")
    host = queue_url.split("/", 3)
    names = ["", "NotVisible", "Delayed"]
    wanted = [f"ApproximateNumberOfMessages{name}" for name in names]
    found = client_of("/".join(host[:3])).get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
    return tuple(int(found[name]) for name in wanted)
