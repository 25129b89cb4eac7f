"""One object a line, one write a line, never too long."""

import json
import logging
import os
import subprocess
import sys

import lines
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import current
from jobrunner.message import Call, Delivery
from jobrunner.telemetry import logs

SCRIPT = """
import logging, sys, structlog
from jobrunner.telemetry import logs
log = logs.configure(log_format=sys.argv[1], level="info")
from jobrunner import current
from datetime import datetime, UTC
job = current.CurrentJob(id="k", message_id="m", method="a.b", attempt=2, sent_at=datetime.now(UTC),
                         scheduled_at=None, context={"request_id": "r", "method": "theirs"})
current.running.set(job)
log.info("ours", n=1)
structlog.get_logger("app").info("structured", n=2)
logging.getLogger("app").warning("standard %s", 3, extra={"order": 7, "event": "theirs"})
logging.getLogger("app").debug("too quiet")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("app").exception("sick")
sys.stdout.close()
log.info("after stdout is closed")
"""


def lines_of(log_format, **env):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, log_format],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    return done.stdout.splitlines()


def test_our_lines_and_both_kinds_of_the_apps_come_out_alike_with_the_jobs_ids():
    lines = [json.loads(line) for line in lines_of("json")]
    assert [line["event"] for line in lines] == ["ours", "structured", "standard 3", "sick", "after stdout is closed"]
    for line in lines:
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert (line["method"], line["message_id"], line["job_id"], line["attempt"]) == ("a.b", "m", "k", 2)
        assert line["request_id"] == "r"
    assert lines[2]["order"] == 7
    assert "ZeroDivisionError" in lines[3]["exception"]


def test_console_lines_are_plain_without_a_terminal():
    lines = lines_of("console")
    assert "ours" in lines[0]
    assert "\x1b" not in "".join(lines)


def test_a_long_traceback_loses_its_middle_and_says_so():
    line = logs.render_json(None, "", {"event": "job.failed", "exception": "first" + "x" * 100_000 + "last"})
    assert len(line) < logs.LINE_BYTES_MAX
    text = json.loads(line)["exception"]
    assert text.startswith("first")
    assert text.endswith("last")
    assert logs.CUT in text


values = st.recursive(st.text() | st.integers() | st.none() | st.binary(), lambda inner: st.lists(inner, max_size=3))


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(max_size=2000), values | st.text(min_size=1, max_size=9).map(lambda text: text * 900), max_size=12
    )
)
def test_every_event_is_one_json_object_of_at_most_4096_bytes(event):
    line = logs.render_json(None, "", {"event": "e", **event})
    assert len(line.encode()) + 1 <= 4096
    assert "\n" not in line
    assert isinstance(json.loads(line), dict)


class Unspeakable:
    def __repr__(self):
        raise ValueError


def test_values_json_cannot_write_do_not_lose_the_line():
    loop = {}
    loop["self"] = loop
    line = logs.render_json(None, "", {"event": "e", "odd": Unspeakable(), "loop": loop, "keys": {(1, 2): 3}})
    assert json.loads(line)["event"] == "e"


@pytest.mark.parametrize(
    ("terminal", "no_color", "term", "wants"),
    [
        (True, "", "xterm", True),
        (True, "1", "xterm", False),
        (True, "", "dumb", False),
        (False, "", "xterm", False),
    ],
)
def test_colours_are_for_terminals_that_have_some_and_no_color_is_honoured(
    monkeypatch, terminal, no_color, term, wants
):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert logs.wants_colors() is wants


def test_the_library_itself_configures_nothing_at_import():
    assert logging.getLogger("botocore").level == logging.NOTSET


@pytest.mark.parametrize(
    "configure",
    [
        "import logging.config; logging.config.dictConfig({'version': 1, 'root': {'handlers': []}})",
        "import structlog; structlog.configure(processors=[lambda *_: 'theirs'])",
    ],
    ids=["logging", "structlog"],
)
def test_an_app_that_configures_logging_for_itself_leaves_our_lines_alone(configure):
    before = SCRIPT.index("from jobrunner import current")
    script = f"{SCRIPT[:before]}{configure}\n{SCRIPT[before:]}"
    done = subprocess.run([sys.executable, "-c", script, "json"], check=True, capture_output=True, text=True)
    ours = [json.loads(line) for line in done.stdout.splitlines() if '"event":"ours"' in line]
    assert [(line["n"], line["method"]) for line in ours] == [(1, "a.b")]


@pytest.fixture
def pipe(monkeypatch):
    """A pipe that nobody reads until the test does, and a writer on it that waits but a moment."""
    monkeypatch.setattr(logs, "WAIT_SECONDS", 0.05)
    reader, writer = os.pipe()
    yield reader, logs.LineWriter(writer)
    os.close(reader)
    os.close(writer)


def fill(write):
    for n in range(100):
        write(json.dumps({"n": n, "text": "x" * 4000}))


def test_a_reader_that_does_not_read_holds_nobody_for_long_and_what_was_dropped_is_counted(pipe):
    reader, writer = pipe
    fill(writer.write)
    kept = read_all(reader)
    writer.write('{"n": 100}')
    writer.write('{"n": 101}')
    lines = [json.loads(line) for line in (kept + read_all(reader)).splitlines()]
    (said,) = [line for line in lines if line.get("event") == "log.dropped"]
    numbers = [line["n"] for line in lines if "n" in line]
    assert said["line_count"] == 102 - len(numbers)
    assert said["line_count"] > 50
    assert numbers == [*range(100 - said["line_count"]), 100, 101]


def test_a_blocking_descriptor_is_not_waited_for_either(monkeypatch):
    """Where the pipe cannot be opened anew, as for another user's: the room is asked for first."""
    monkeypatch.setattr(logs, "WAIT_SECONDS", 0.05)
    real = os.open
    monkeypatch.setattr(logs.os, "open", lambda path, *words: real("/nonexistent" if "/proc" in path else path, *words))
    reader, descriptor = os.pipe()
    writer = logs.LineWriter(descriptor)
    assert not writer._never_waits
    fill(writer.write)
    assert writer._dropped > 50
    os.close(reader)
    os.close(descriptor)


def test_our_writes_do_not_change_the_apps_own_stdout(pipe):
    _, writer = pipe
    assert not os.get_blocking(writer._descriptor)
    reader, descriptor = os.pipe()
    logs.LineWriter(descriptor)
    assert os.get_blocking(descriptor)
    os.close(reader)
    os.close(descriptor)


def test_a_descriptor_that_has_become_somebody_elses_is_not_written_to(tmp_path):
    """A job that closes every descriptor closes ours as well, and the next socket gets its number."""
    script = (
        "import os, sys\nfrom jobrunner.telemetry import logs\n"
        "log = logs.configure(log_format='json', level='info')\nlog.info('before')\n"
        "os.closerange(3, 256)\nlogs.LOOK_SECONDS = 0\n"
        f"others = [os.open({str(tmp_path / 'theirs')!r}, os.O_WRONLY | os.O_CREAT) for _ in range(20)]\n"
        "log.info('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["before", "after"]
    assert (tmp_path / "theirs").read_bytes() == b""


def test_an_event_of_thousands_of_keys_is_cut_without_looking_at_each():
    line = logs.render_json(None, "", {"event": "e", **{f"key{n}": "x" * 100 for n in range(50_000)}})
    found = json.loads(line)
    assert len(line) < logs.LINE_BYTES_MAX
    assert (found["event"], found["keys_cut_count"]) == ("e", 50_001 - logs.KEYS_MAX)


def test_an_app_that_takes_our_handler_away_is_noticed():
    script = (
        "import logging, logging.config\nfrom jobrunner.telemetry import logs\n"
        "logs.configure(log_format='json', level='info')\nprint(logs.is_heard())\n"
        "logging.config.dictConfig({'version': 1, 'root': {'handlers': []}})\nprint(logs.is_heard())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]


def read_all(descriptor):
    os.set_blocking(descriptor, False)
    found = b""
    try:
        while data := os.read(descriptor, 65536):
            found += data
    except BlockingIOError:
        return found


def test_a_jobs_context_cannot_take_the_place_of_what_a_line_must_have():
    """Not its process's number, and not its ids where it has more members than a line takes."""
    context = {f"key{n}": "x" for n in range(200)} | {"pid": "7", "keys_cut_count": "2", "duration_ms": "9"}
    call = Call(method="job", context=context)
    delivery = Delivery(message_id="m", receipt_handle="", body="", attempt=1, sent_at=0)
    token = current.running.set(current.CurrentJob.of(call, delivery))
    event = logs.add_job(None, "", {"event": "job.done", "level": "info", "duration_ms": 1.5, "queue_ms": 2})
    current.running.reset(token)
    line = json.loads(logs.render_json(None, "", logs.add_stamp(None, "", event)))
    assert lines.faults_of(line) == []
    assert (line["method"], line["pid"], line["duration_ms"]) == ("job", os.getpid(), 1.5)
    assert line["keys_cut_count"] > 100
