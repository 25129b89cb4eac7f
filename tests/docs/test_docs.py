"""The pages say what is true: blocks are run, tables are compared with the code."""

import ast
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import click
import jsonschema
import pages
import pytest
import yaml
from click.testing import CliRunner
from servers import MINISTACK, ROOT, VERSION, wait_for
from workers import Worker

from jobrunner.cli import main
from jobrunner.errors import EXIT_REASONS
from jobrunner.message import decode
from jobrunner.telemetry import metrics
from jobrunner.worker import runner, settler

README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
BIN = Path(sys.executable).parent
PACKAGE = ROOT / "consumer" / "jobrunner"


def test_the_quick_start_does_what_it_shows(tmp_path):
    for name, text in pages.files(README).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "jobs" / "__init__.py").write_text("")
    start, session = pages.blocks(README, "console")
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    dev = Worker(*start.split()[2:], cwd=tmp_path, start_new_session=True)
    try:
        wait_for(lambda: any("jobrunner enqueue METHOD" in line for line in dev.other), 20, lambda: str(dev))
        exports = dict(line.split("export ")[1].strip().split("=", 1) for line in dev.other if "export " in line)
        for command, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", session, re.MULTILINE):
            environment = {**os.environ, **path, **exports}
            done = subprocess.run(
                shlex.split(command), check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
            )
            assert done.stdout == shown or not shown
        dev.wait("job.done", seconds=20)
        expected = [json.loads(line) for line in pages.blocks(README, "json")[0].splitlines()]
        found = [line for line in dev.lines if line.get("request_id") == "7f3a"]
        assert [list(line) for line in found] == [list(line) for line in expected]
        for key in ("event", "method", "attempt", "request_id", "logger"):
            assert [line.get(key) for line in found] == [line.get(key) for line in expected]
    finally:
        os.killpg(dev.process.pid, signal.SIGKILL)
        dev.end()


def test_the_call_from_the_web_app_works(tmp_path, monkeypatch):
    code = next(text for text in pages.blocks(README, "python") if "enqueue(" in text)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("")
    (tmp_path / "jobs" / "hello.py").write_text("def greet(name): print('hello', name)")
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "JOBRUNNER_QUEUE_URL": "inline:", "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.stdout == "hello Ada\n"


def test_the_message_shown_is_the_wire_format():
    assert decode(pages.blocks(README, "json")[1]).method == "thumbnails.make"


def test_make_targets_shown_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"(?:`|^)make (\w+)", README, re.MULTILINE):
        assert command in targets


def test_every_exit_code_is_listed():
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    assert rows == {str(int(code)): reason for code, reason in EXIT_REASONS.items()}


def test_every_option_of_consume_is_listed_with_its_variable():
    rows = re.findall(r"^\| `(--[a-z-]+)` \| `(JOBRUNNER_\w+)` \|", README, re.MULTILINE)
    options = main.commands["consume"].params
    assert rows == [(option.opts[0], option.envvar) for option in options]


@pytest.mark.parametrize("row", re.findall(r"^\| .*? \| .* \| `(test_\w+)` \|$", README, re.MULTILINE))
def test_every_row_of_what_happens_when_names_a_test(row):
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert f"def {row}(" in tests


def test_the_thread_table_is_exact():
    source = Path(runner.__file__).read_text()
    started = set(re.findall(r'^ +\("(\w+)", ', source, re.MULTILINE))
    table = ARCHITECTURE.split("## Threads")[1].split("## ")[0]
    listed = re.findall(r"^\| ([a-z].*?) \|", table, re.MULTILINE)
    names = {word.split("-")[0] for row in listed for word in row.split(", ")} - {"thread", "main"}
    assert names == started
    assert f"receiver-1 to {runner.RECEIVERS}" in table
    assert f"deleter-1 to {runner.DELETERS}" in table


def test_every_path_in_the_pages_for_contributors_exists():
    """A file or a folder of the library, by its name in the text."""
    rooms = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    for page in ("ARCHITECTURE.md", "CONTRIBUTING.md"):
        for name in re.findall(r"`([a-z_]+(?:/[a-z_]*)*(?:\.py|/))`", (ROOT / page).read_text()):
            places = [PACKAGE / name, ROOT / name, *PACKAGE.glob(f"*/{name}")]
            assert any(place.exists() for place in places), f"{page}: {name} {sorted(rooms)}"


def test_every_room_says_what_lives_there():
    for path in PACKAGE.rglob("*.py"):
        assert path.read_text().startswith('"""'), path


def test_no_function_is_long():
    for path in PACKAGE.rglob("*.py"):
        most = 30 if path.parent.name == "worker" else 40
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < most, f"{path.name}: {node.name}"


def test_the_wheels_name_has_our_version():
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for page in pages_of_all():
        assert set(re.findall(r"jobrunner_sqs-([0-9.]+)-py3", page.read_text())) <= {ours}, page.name


def pages_of_all():
    return [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def test_the_documented_links_exist():
    for page in pages_of_all():
        for link, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text()):
            found = page.parent / link if link else page
            assert found.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(found.read_text()), f"{page.name}: {link}#{anchor}"


def anchors(page):
    """Give what GitHub makes of a page's headings."""
    headings = re.findall("^#+ (.+)$", page, re.MULTILINE)
    return {re.sub("[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["flask", "async", "sentry"])
def test_a_page_about_a_framework_is_read_in_a_minute(page):
    assert len((ROOT / "docs" / f"{page}.md").read_text().splitlines()) <= 40


def test_the_crons_shown_are_the_demos():
    listed = CliRunner().invoke(main, ["crons", "list", "--app-dir", str(ROOT)]).output
    shown = next(text for text in pages.blocks(README, "text") if "weekly_newsletter" in text)
    kept = [line for line in listed.splitlines() if not line.startswith("  next: ")]
    assert shown.splitlines() == kept
    table = tomllib.loads(pages.blocks(README, "toml")[0])["weekly_newsletter"]
    assert table.items() <= tomllib.loads((ROOT / "jobs" / "crons.toml").read_text())["weekly_newsletter"].items()


def test_the_transformers_template_writes_our_wire_format():
    page = (ROOT / "docs" / "events.md").read_text()
    (targets,) = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if '"Id"' in text]
    template = targets[0]["InputTransformer"]["InputTemplate"]
    call = decode(template.replace("<key>", '"cat.png"').replace("<id>", '"7f3a"'))
    assert (call.method, call.params, call.id) == ("thumbnails.make", {"key": "cat.png"}, "7f3a")


RUNNING = (ROOT / "docs" / "running.md").read_text()
SOURCES = {path: path.read_text() for path in PACKAGE.rglob("*.py")}


def table(page, heading):
    """Give the first cells of a section's tables."""
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [word for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for word in re.findall(r"`(.*?)`", row)]


def test_every_metric_is_explained():
    given = re.compile(r"metrics\.(?:job|event)\(([^,)]*)")
    words = {word for text in SOURCES.values() for call in given.findall(text) for word in re.findall(r'"(\w+)"', call)}
    names = {metrics._name(word) for word in (*words, *settler.UNFINISHED)}
    assert set(table(RUNNING, "Metrics")) == names | {"Duration", "QueueLatency", "InFlight"}
    assert {metric for space, metric, _ in shown() if space == "jobrunner"} == set(table(RUNNING, "Metrics"))


class Template(yaml.SafeLoader):
    """YAML with CloudFormation's own tags."""


Template.add_multi_constructor("!", lambda _loader, _tag, node: node.value)
TEMPLATE = yaml.load((ROOT / "deploy" / "aws" / "jobrunner.yaml").read_text(), Loader=Template)
#: AWS: "Available CloudWatch metrics for Amazon SQS", "Monitoring Amazon EventBridge Scheduler with CloudWatch".
OF_AWS = {
    "AWS/SQS": {
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesDelayed",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesVisible",
        "NumberOfEmptyReceives",
        "NumberOfMessagesDeleted",
        "NumberOfMessagesReceived",
        "NumberOfMessagesSent",
        "SentMessageSize",
    },
    "AWS/Scheduler": {
        "InvocationAttemptCount",
        "InvocationDroppedCount",
        "InvocationThrottleCount",
        "InvocationsFailedToBeSentToDeadLetterCount",
        "InvocationsSentToDeadLetterCount",
        "TargetErrorCount",
        "TargetErrorThrottledCount",
    },
}
#: After AWS's "Dashboard Body Structure and Syntax", as far as it is used here.
WIDGET = {
    "type": "object",
    "required": ["type", "x", "y", "width", "height", "properties"],
    "additionalProperties": False,
    "properties": {
        "type": {"enum": ["metric", "alarm"]},
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": {"type": "integer", "minimum": 0},
        "width": {"type": "integer", "minimum": 1, "maximum": 24},
        "height": {"type": "integer", "minimum": 1, "maximum": 1000},
        "properties": {"type": "object"},
    },
    "if": {"properties": {"type": {"const": "alarm"}}},
    "then": {
        "properties": {
            "properties": {
                "required": ["alarms"],
                "additionalProperties": False,
                "properties": {
                    "title": {"type": "string"},
                    "alarms": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 100},
                },
            }
        }
    },
    "else": {
        "properties": {
            "properties": {
                "required": ["metrics", "region", "title", "view"],
                "additionalProperties": False,
                "properties": {
                    "metrics": {"type": "array", "minItems": 1, "maxItems": 500, "items": {"$ref": "#/$defs/metric"}},
                    "region": {"type": "string"},
                    "title": {"type": "string"},
                    "view": {"const": "timeSeries"},
                    "stacked": {"type": "boolean"},
                    "stat": {"enum": ["Sum", "Maximum", "Average", "Minimum", "SampleCount"]},
                    "period": {"enum": [60, 300]},
                    "annotations": {
                        "type": "object",
                        "required": ["horizontal"],
                        "properties": {
                            "horizontal": {
                                "items": {"required": ["value"], "properties": {"value": {"type": "number"}}}
                            }
                        },
                    },
                },
            }
        }
    },
}
METRIC = {
    "type": "array",
    "oneOf": [
        {
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["expression", "id"],
                "additionalProperties": False,
                "properties": {
                    "expression": {"type": "string", "pattern": r"^SEARCH\('\{[^}]+\} [^']+', '(Sum|Maximum)', 60\)$"},
                    "id": {"type": "string", "pattern": "^[a-z][a-zA-Z0-9_]*$"},
                    "label": {"type": "string"},
                },
            },
        },
        {
            "minItems": 4,
            "prefixItems": [{"type": "string"}] * 4,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"label": {"type": "string"}, "stat": {"pattern": r"^(p\d\d|Sum|Maximum)$"}},
            },
        },
    ],
}
DASHBOARD = {
    "type": "object",
    "required": ["widgets"],
    "additionalProperties": False,
    "properties": {
        "start": {"type": "string", "pattern": "^-PT?[0-9]+[HMD]$"},
        "widgets": {"type": "array", "maxItems": 500, "items": WIDGET},
    },
    "$defs": {"metric": METRIC},
}


def dashboard():
    """Give the template's dashboard with something in place of each name."""
    body = TEMPLATE["Resources"]["JobsDashboard"]["Properties"]["DashboardBody"]
    return json.loads(
        re.sub(r"\$\{([\w.:]+)\}", lambda match: "900" if match[1] == "OldestSeconds" else match[1], body)
    )


def shown():
    """Give namespace, name and dimensions of each metric that the dashboard shows."""
    for widget in dashboard()["widgets"]:
        for metric in widget["properties"].get("metrics", ()):
            if isinstance(metric[0], str):
                yield metric[0], metric[1], (metric[2],)
            else:
                found = re.search(r"\{(\w+),([\w,]+)\} MetricName=\"(\w+)\"", metric[0]["expression"])
                yield found[1], found[3], tuple(found[2].split(","))


def test_the_dashboard_is_one_by_awss_rules_and_its_widgets_do_not_overlap():
    jsonschema.validate(dashboard(), DASHBOARD)
    taken = set()
    for widget in dashboard()["widgets"]:
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    ids = [m[0]["id"] for w in dashboard()["widgets"] for m in w["properties"].get("metrics", ()) if len(m) == 1]
    assert len(ids) == len(set(ids))


def test_the_dashboard_shows_what_there_is():
    for space, metric, dimensions in shown():
        if space == "jobrunner":
            assert list(dimensions) in (["Queue"], ["Queue", "Method"])
        else:
            assert metric in OF_AWS[space]
            assert dimensions == ({"AWS/SQS": "QueueName", "AWS/Scheduler": "ScheduleGroup"}[space],)
    made = {name for name, made in TEMPLATE["Resources"].items() if made["Type"] == "AWS::CloudWatch::Alarm"}
    (alarms,) = [w["properties"]["alarms"] for w in dashboard()["widgets"] if w["type"] == "alarm"]
    assert {name.removesuffix(".Arn") for name in alarms} == made


def test_what_differs_between_the_servers_is_what_the_contract_says():
    page = (ROOT / "docs" / "local.md").read_text()
    head, *rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.*\|$", page, re.MULTILINE)
    ]
    kinds = [cell.split()[0].lower() for cell in head[1:]]
    shown = {row[0]: dict(zip(kinds, row[1:], strict=True)) for row in rows}
    contract = ast.parse((ROOT / "tests" / "contract" / "test_queue.py").read_text())
    (given,) = [
        node.value for node in contract.body if isinstance(node, ast.Assign) and node.targets[0].id == "DIFFERENCES"
    ]
    for difference, by_kind in ast.literal_eval(given).items():
        assert by_kind.items() <= shown[difference].items()
    assert f"moto {version('moto')}" in head
    assert f"ElasticMQ {VERSION}" in head
    assert f"MiniStack {MINISTACK}" in head


def test_every_alarm_has_its_row_for_people():
    names = [
        made["Properties"]["AlarmName"].replace("${App}-${Environment}", "APP-ENV")
        for made in TEMPLATE["Resources"].values()
        if made["Type"] == "AWS::CloudWatch::Alarm"
    ]
    assert sorted(name for name in table(RUNNING, "Alarms") if name.startswith("APP-")) == sorted(names)


def test_alarms_name_a_section_of_the_page():
    template = (ROOT / "deploy" / "aws" / "jobrunner.yaml").read_text()
    sections = re.findall(r"docs/running.md, '(.*?)'", template)
    assert len(sections) == 5
    for section in sections:
        assert f"\n## {section}\n" in RUNNING


def commands():
    """Find every command line of ours in the pages."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for block in pages.blocks(page.read_text(), "(?:sh|console)"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.removeprefix("$ ").startswith("jobrunner "):
                    yield page.name, line.removeprefix("$ ").split("#")[0].split(" -- ")[0].split()[1:]


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_every_command_shown_exists_with_its_options(page, words):
    command = main
    while words and isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known, page


def test_the_page_on_tests_shows_tests_that_pass(tmp_path):
    for name, text in pages.files((ROOT / "docs" / "testing.md").read_text()).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "jobs" / "__init__.py").touch()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


WRONG = """
from jobrunner import call, enqueue
import typed_jobs as jobs
enqueue(call(jobs.ship, number=7), delay_seconds=5)
enqueue(call(jobs.ship, 7, fast=True))
"""
MISTAKES = (
    "enqueue(call(jobs.ship, nr=7))",
    "enqueue(call(jobs.ship, number='7'))",
    "enqueue(call(jobs.ship))",
    "enqueue(call(jobs.shop, number=7))",
    "enqueue(call(jobs.ship, number=7), delay_seconds='5')",
)


def test_a_type_checker_sees_a_wrong_call(tmp_path):
    (tmp_path / "typed_jobs.py").write_text("def ship(number: int, *, fast: bool = False) -> None: ...\n")
    (tmp_path / "web.py").write_text(WRONG + "\n".join(MISTAKES) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", "web.py"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    lines = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    first = WRONG.count("\n") + 1
    assert lines == set(range(first, first + len(MISTAKES))), done.stdout + done.stderr


def test_what_the_pages_have_from_the_code_is_as_made_by_make_pages():
    make = runpy.run_path(str(ROOT / "docs" / "make.py"))
    for path, text in make["pages"]().items():
        assert path.read_text() == text, f"{path.name}: make pages"


PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
#: Beside the options' own: what `enqueue` reads, what deploy/ reads, and what a page's own code reads.
VARIABLES = {
    "JOBRUNNER_ENQUEUE_SECONDS",
    "JOBRUNNER_LATER_DEAD_LETTER_ARN",
    "JOBRUNNER_LATER_GROUP",
    "JOBRUNNER_LATER_ROLE_ARN",
    "JOBRUNNER_PROCESSES",
    "JOBRUNNER_QUEUE_URL_SLOW",
    "JOBRUNNER_SHARE",
}
#: Of other programs, by themselves: dramatiq's, benchmarks/run.py's, docker's.
OF_OTHERS = {"--processes", "--rounds", "--jobs", "--platform"}


def options_of(command, name="jobrunner"):
    """Give every option of a command and those below it, as `jobrunner ... --help` shows them."""
    for below, each in getattr(command, "commands", {}).items():
        yield from options_of(each, f"{name} {below}")
    shown = CliRunner().invoke(command, ["--help"]).output
    for option in (each for each in command.params if isinstance(each, click.Option) and not each.hidden):
        assert option.opts[0] in shown, f"{name} --help"
        assert option.envvar is None or option.envvar in shown, f"{name} --help says no {option.envvar}"
        yield name, option


def test_the_pages_and_help_agree_on_flags_and_variables():
    options = list(options_of(main))
    flags = {flag for _, option in options for flag in option.opts} | {"--help"}
    variables = {option.envvar for _, option in options if option.envvar} | VARIABLES
    for page, text in PAGES.items():
        spans = re.findall(r"`((?:jobrunner |--)[^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        spoken = {flag for span in spans for flag in re.findall(r"(?<!\S)--[a-z][a-z-]+", span.split(" -- ")[0])}
        assert spoken <= flags | OF_OTHERS, page
        assert {f"JOBRUNNER_{name}" for name in re.findall(r"\bJOBRUNNER_([A-Z_]+)", text)} <= variables, page
    said = " ".join(PAGES.values())
    assert {variable for variable in variables if variable not in said} == set()
    assert {name for name, _ in options if name not in said} == set(), "each command is on a page"
