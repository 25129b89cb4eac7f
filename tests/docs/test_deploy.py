"""The deploy files, as far as they can be checked without an engine to run them."""

import configparser
import importlib.util
import json
import re
import runpy
import shutil
import subprocess
import sys

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


def start():
    spec = importlib.util.spec_from_file_location("start_of_a_test", ROOT / "deploy" / "start.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["start.py", "--listen"])  # else it would take the signals of this process
        spec.loader.exec_module(module)
    return module


def test_the_shares_of_the_stop_add_up_and_are_those_of_the_page():
    """Also where the worker is stuck: what supervisord waits for it is its whole share."""
    longest = stop.GRACE_SECONDS + stop.SETTLE_SECONDS
    worker, gunicorn, spare = (getattr(start(), f"{name}_SECONDS") for name in ("WORKER", "GUNICORN", "SPARE"))
    assert longest + 1 < int(supervisord()["program:jobrunner"]["stopwaitsecs"]) == worker
    table = (ROOT / "docs" / "running.md").read_text().split("### The stop")[1].split("### ")[0]
    rows = [line.split(" | ")[-2:] for line in table.splitlines() if line.startswith("| ")][1:]
    for column, total in ((0, 10), (1, 30)):
        shares = [int(row[column].strip(" |")) for row in rows]
        web = total - worker - gunicorn - spare
        assert shares == [worker, web, gunicorn, spare, total - spare, total]


def test_every_line_of_gunicorn_is_json_also_uvicorns():
    """Uvicorn's worker class takes the handlers of `gunicorn.error` for its own loggers, and nothing else."""
    settings = runpy.run_path(str(ROOT / "deploy" / "gunicorn.conf.py"))
    handlers = settings["logconfig_dict"]["loggers"]["gunicorn.error"]["handlers"]
    assert [settings["logconfig_dict"]["handlers"][name]["formatter"] for name in handlers] == ["json"]


def test_what_waits_outlives_its_stack():
    class Loader(yaml.SafeLoader):
        """Takes CloudFormation's own tags."""

    Loader.add_multi_constructor("!", lambda *_: None)
    found = yaml.load((ROOT / "deploy" / "aws" / "jobrunner.yaml").read_text(), Loader)["Resources"]
    kept = {name for name, each in found.items() if each.get("DeletionPolicy") == "RetainExceptOnCreate"}
    assert kept == {"Jobs", "DeadLetters", "Later"}


def test_a_bucket_that_has_no_configuration_gets_one():
    """The CLI prints nothing at all for it."""
    (words,) = re.findall(r"jq -s '(.+)' notifications.json", (ROOT / "docs" / "events.md").read_text())
    for before, after in (("", {}), ('{"QueueConfigurations": []}', {"QueueConfigurations": []})):
        if shutil.which("jq") is None:
            pytest.skip("no jq here")
        answer = subprocess.run(["jq", "-s", words], input=before, capture_output=True, text=True, check=True).stdout
        assert json.loads(answer) == {**after, "EventBridgeConfiguration": {}}


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
