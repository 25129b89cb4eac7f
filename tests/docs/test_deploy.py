"""The deploy files, as far as they can be checked without an engine to run them."""

import configparser
import re
import shutil
import subprocess

import pytest
import yaml
from servers import ROOT, VERSION

from jobrunner.worker import stop

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def supervisord():
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read(ROOT / "deploy" / "supervisord.conf")
    return parser


def test_supervisord_waits_longer_than_our_stop_takes():
    longest = stop.GRACE_SECONDS + stop.SETTLE_SECONDS
    assert longest < 3
    assert int(supervisord()["program:jobrunner"]["stopwaitsecs"]) > longest + 3


def test_lines_go_to_the_containers_stdout_unrotated():
    for program in ("program:web", "program:jobrunner"):
        section = supervisord()[program]
        assert (section["stdout_logfile"], section["stdout_logfile_maxbytes"]) == ("/dev/fd/1", "0")


def test_the_image_gets_no_more_than_it_needs():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    needed = {
        word.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for word in line.split()
    }
    assert needed == {line.removeprefix("!") for line in ignored if line.startswith("!")}


def test_the_image_runs_as_a_user_with_a_home():
    assert "useradd --create-home" in DOCKERFILE
    assert DOCKERFILE.index("USER app") < DOCKERFILE.index("CMD [")


def test_compose_has_the_queue_that_elasticmq_makes():
    environment = COMPOSE["services"]["app"]["environment"]
    assert environment["JOBRUNNER_QUEUE_URL"].endswith("/000000000000/jobs")
    assert COMPOSE["services"]["sqs"]["image"].endswith(f":{VERSION}")
    config = (ROOT / "deploy" / "elasticmq.conf").read_text()
    for text in ("jobs {", 'name = "jobs-dead", maxReceiveCount = 10', "accountId = 000000000000"):
        assert text in config


def test_docker_itself_accepts_the_compose_file():
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("docker compose is not on this machine; the other checks here are")
    subprocess.run(["docker", "compose", "-f", ROOT / "docker-compose.yml", "config", "-q"], check=True)
