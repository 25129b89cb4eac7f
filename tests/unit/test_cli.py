"""The command line: help that is true, errors that name the cure, one exit code a reason."""

import functools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from jobrunner.cli import main
from jobrunner.errors import EXIT_REASONS, ExitCode
from jobrunner.testing import enqueued


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return lambda *words, **options: CliRunner().invoke(main, [str(word) for word in words], **options)


def every_command(group=main, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_every_command_reads_like_a_manual(run, path):
    text = run(*path, "--help").output
    assert f"    jobrunner {' '.join(path)}" in text.split("Example")[1], "an example that can be pasted"
    command = functools.reduce(lambda group, name: group.commands[name], path, main)
    for option in (parameter for parameter in command.params if isinstance(parameter, click.Option)):
        assert option.help
        assert not option.envvar or option.envvar in text
        assert not isinstance(option.default, int | str) or not option.default or option.show_default
    assert "\x1b" not in text, "plain where no terminal is"


def test_every_summary_fits_its_line(run):
    for words in ([], ["dead"], ["crons"], ["scheduled"]):
        assert "...\n" not in run(*words, "--help").output.split("Commands:")[1]


def test_completion_is_there_as_the_help_says():
    environment = {**os.environ, "_JOBRUNNER_COMPLETE": "bash_source"}
    program = Path(sys.executable).parent / "jobrunner"
    done = subprocess.run([program], check=True, capture_output=True, text=True, env=environment)
    assert "_jobrunner_completion" in done.stdout


def test_every_exit_code_has_its_reason():
    assert set(EXIT_REASONS) == set(ExitCode)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["enqueue", "a"], 2, "no queue: give --queue-url or set JOBRUNNER_QUEUE_URL"),
        (["enqueue", "a", "{x}", "--queue-url", "inline:"], 2, "PARAMS_JSON '{x}' is not JSON"),
        (["enqueue", "a", "--context", "x", "--queue-url", "inline:"], 2, "--context 'x' is not NAME=VALUE"),
        (["enqueue", "a-b", "--queue-url", "inline:"], 2, "not dotted Python names"),
        (["methods", "--app-dir", "/nowhere/at/all"], 2, "'/nowhere/at/all' does not exist"),
        (["dev", "--threads", "4"], 2, "No such option"),
        (["dev", "--", "no-such-program"], 2, "there is no program 'no-such-program' on the PATH"),
        (["dev", "--port", "99999"], 2, "99999 is not in the range"),
        (["dev", "--queue", "a b"], 2, "--queue 'a b' is not 1 to 75 letters"),
        (["dev", "--around", "x"], 2, "--around 'x' is not MODULE:CALLABLE"),
        (["dev", "--attempts", "0"], 2, "0 is not in the range"),
        (["methods", "--module", "nothing_here"], 3, "no module 'nothing_here'"),
        (["health"], 2, "--status-file"),
    ],
)
def test_errors_are_one_line_with_the_cure_and_their_code(run, words, code, says):
    result = run(*words)
    assert (result.exit_code, says in result.output) == (code, True), result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["consume", "--queue-url", "http://x/1/q "], 2, "white space around it"),
        (["consume"], 2, "no queue"),
        (["consume", "--queue-url", "inline:"], 2, "`inline:` is for enqueue"),
        (["consume", "--queue-url", "http://x/1/q.fifo"], 2, "FIFO"),
        (["consume", "--queue-url", "http://x/1/q", "--threads", "0"], 2, "--threads is 0"),
        (["consume", "--threads", "many"], 2, "'many' is not a valid integer"),
        (["consume", "--no-such-flag"], 2, "No such option"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_a_line_of_its_log(words, code, says):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBRUNNER_")}
    done = subprocess.run(
        [sys.executable, "-m", "jobrunner", *words], check=False, capture_output=True, text=True, env=environment
    )
    line = json.loads(done.stdout)
    assert (done.returncode, line["event"], line["code"]) == (code, "worker.refused", code)
    assert says in line["error"]
    assert done.stderr == ""


def test_methods_prints_the_catalog_with_signatures(run, tmp_path):
    made = "def made():\n    def job(): pass\n    return job\n"
    (tmp_path / "elsewhere.py").write_text(made)
    code = "from elsewhere import made\ndecorated = made()\ndef ship(id, fast=False): pass\ndef every(): yield 1\n"
    (tmp_path / "shop_jobs.py").write_text(code)
    result = run("methods", "--module", "shop_jobs", "--app-dir", tmp_path)
    assert result.stdout == "ship(id, fast=False)\n"
    assert result.stderr.splitlines() == [
        "left out: decorated: it is defined in elsewhere, not here: by a decorator without functools.wraps?",
        "left out: every: it is a generator: calling it runs nothing",
    ]


@pytest.fixture
def unsent(monkeypatch, tmp_path):
    """A folder with jobs, and what would have been sent."""
    (tmp_path / "checked_jobs.py").write_text("def greet(name): pass\ndef helper(*args, **kwargs): pass\n")
    monkeypatch.delitem(sys.modules, "checked_jobs", raising=False)  # of another test's folder
    monkeypatch.setenv("JOBRUNNER_MODULE", "checked_jobs")
    monkeypatch.setenv("JOBRUNNER_APP_DIR", str(tmp_path))
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "http://x/1/q")
    with enqueued() as sent:
        yield sent


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gret", '{"name": "Ada"}'], "near misses: greet"),
        (["greet", '{"nam": "Ada"}'], "missing a required argument: 'name'; unexpected 'nam'"),
        (["checked_jobs.greet", '{"name": "Ada"}'], "it is 'greet', without the module in front"),
    ],
)
def test_a_call_that_the_code_here_would_refuse_is_not_sent_unless_one_insists(run, unsent, words, says):
    path = list(sys.path)
    result = run("enqueue", *words)
    assert (result.exit_code, says in result.output, unsent) == (2, True, []), result.output
    assert "Nothing was sent; --unchecked sends it all the same" in result.output
    assert sys.path == path, "what botocore imports late must not find the app's files"
    assert run("enqueue", "--unchecked", *words).exit_code == 0
    assert unsent[0].method == words[0]


def test_a_call_is_sent_unchecked_where_the_code_is_not_here_or_does_not_load(run, unsent, monkeypatch, tmp_path):
    result = run("enqueue", "any.thing", "--module", "nothing_here")
    assert (result.exit_code, "not checked: no module 'nothing_here'" in result.stderr) == (0, True)
    (tmp_path / "broken_jobs.py").write_text("import not_installed\n")
    result = run("enqueue", "any.thing", "--module", "broken_jobs")
    assert result.stderr.startswith("not checked, since the app does not load here:")
    assert len(unsent) == 2


@pytest.mark.parametrize("params", ['{"name": 1, "name": 2}', "[NaN]"])
def test_params_are_read_as_strictly_as_by_the_worker(run, unsent, params):
    assert run("enqueue", "greet", params).exit_code == 2
    assert unsent == []


def test_a_job_that_takes_anything_is_marked(run, unsent):
    assert run("methods").stdout.splitlines() == [
        "greet(name)",
        "helper(*args, **kwargs)   # takes anything: a helper, or a decorator without functools.wraps?",
    ]


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        (["enqueue"], "gr", ["greet"]),
        (["enqueue", "--module", "nothing_here"], "gr", []),
        (["crons", "run"], "night", ["nightly"]),
        (["dead", "retry", "--method"], "he", ["helper"]),
    ],
)
def test_completion_knows_methods_and_crons(unsent, tmp_path, monkeypatch, words, incomplete, found):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "crons.toml").write_text('[nightly]\nmethod = "greet"\nparams = ["x"]\nschedule = "rate(1 day)"\n')
    completion = ShellComplete(main, {}, "jobrunner", "_JOBRUNNER_COMPLETE")
    assert [item.value for item in completion.get_completions(words, incomplete)] == found


def test_a_port_that_is_taken_is_said(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("dev", "--port", taken.getsockname()[1])
    assert (result.exit_code, "Leave --port out for a free one" in result.output) == (2, True), result.output


def test_enqueue_inline_finds_the_jobs_of_the_folder_it_runs_in(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBRUNNER_MODULE", "inline_jobs")
    (tmp_path / "inline_jobs.py").write_text("def say(word): print(word)\n")
    assert run("enqueue", "say", '["hello"]', "--queue-url", "inline:").stdout.startswith("hello\n")


def test_what_an_inline_job_enqueues_runs_inline_too(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "")
    (tmp_path / "chained_jobs.py").write_text(
        "from jobrunner import enqueue\ndef first(): enqueue('second')\ndef second(): print('the second')\n"
    )
    words = ("--queue-url", "inline:", "--module", "chained_jobs", "--app-dir", tmp_path)
    assert run("enqueue", "first", *words).stdout.startswith("the second\n")


def test_methods_says_when_there_are_none(run, tmp_path):
    (tmp_path / "empty_jobs.py").touch()
    result = run("methods", "--module", "empty_jobs", "--app-dir", tmp_path)
    assert "empty_jobs has no methods: write public functions in it" in result.stderr


def test_enqueue_prints_the_jobs_id(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("JOBRUNNER_MODULE", "printing_jobs")
    (tmp_path / "printing_jobs.py").write_text("def say(word): print(word)\n")
    result = run("enqueue", "say", '{"word": "hello"}', "--queue-url", "inline:")
    assert result.stdout.splitlines()[0] == "hello"
    assert len(result.stdout.splitlines()[1]) == 36


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        ({"pid": 1, "state": "polling", "in_hand": 0, "at": 0}, 0, "pid 1 polling, 0 in hand"),
        ({"pid": 1, "state": "busy", "in_hand": 8, "at": -60}, 1, "stuck or dead"),
        ("not json", 1, "not a status file"),
        (None, 1, "Is `consume --status-file` running?"),
    ],
)
def test_health_tells_alive_from_stuck_dead_and_missing(run, tmp_path, status, code, says):
    path = tmp_path / "status.json"
    if isinstance(status, dict):
        path.write_text(json.dumps({**status, "at": time.time() + status["at"]}))
    elif status:
        path.write_text(status)
    result = run("health", "--status-file", path)
    assert (result.exit_code, says in result.output) == (code, True), result.output


@pytest.mark.parametrize("words", [["--help"], ["enqueue", "--help"], ["--version"]])
def test_help_does_not_wait_for_what_it_does_not_use(words):
    script = (
        "import sys\nfrom jobrunner.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    pass\n"
        "assert not {'boto3', 'structlog', 'asyncio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
