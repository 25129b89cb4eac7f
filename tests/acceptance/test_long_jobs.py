"""docs/long-jobs.md, done as it says: a job that is stopped five times, and a task that ECS leaves alone."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pages
import pytest
from servers import ROOT, make_queue, wait_for

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
]

PAGE = (ROOT / "docs" / "long-jobs.md").read_text()
STEPS = 60
SHOP = f"""
import os, time
def count(key):
    return {STEPS}
def load(key, number):
    time.sleep(0.1)
    with open(os.path.join(os.path.dirname(__file__), "..", "notes.txt"), "a") as notes:
        notes.write(f"{{number}}\\n")
"""


@pytest.fixture
def long_app(app, server_url):
    app.queue_url = make_queue(server_url, "long", visibility_seconds=10)
    (app.folder / "jobs.py").unlink()
    for name, text in {**pages.files(PAGE), "jobs/__init__.py": "", "shop/rows.py": SHOP}.items():
        app.write(name, text)
    return app


@pytest.mark.long
def test_a_job_of_sixty_steps_that_is_stopped_five_times_does_each(long_app):
    """Four deploys and a crash: what was told to stop repeats no step, what was killed repeats from its message's."""
    app = long_app
    app.enqueue(("imports.load", {"key": "big"}))
    for stop in range(5):
        before = len(app.notes())
        worker = app.consume(env={"JOBRUNNER_QUEUE_URL": app.queue_url})
        wait_for(lambda seen=before: len(app.notes()) >= seen + 8, 30, str(worker))
        if stop == 2:
            worker.kill()
            continue
        assert worker.stop()[0] == 0, str(worker)
        assert worker.named("worker.stopped", handed_back_count=0), str(worker)
    worker = app.consume(env={"JOBRUNNER_QUEUE_URL": app.queue_url})
    wait_for(lambda: str(STEPS - 1) in app.notes(), 30, str(worker))
    app.wait_until_empty()
    done = [int(number) for number in app.notes()]
    assert sorted(set(done)) == list(range(STEPS))
    repeated = len(done) - STEPS
    assert 0 < repeated < 20, "only what the killed one had done"


class Agent:
    """ECS's agent, as far as task protection goes; `status` and `answer` are what it says."""

    def __init__(self):
        self.asked = []
        self.status, self.answer = 200, {"protection": {"ProtectionEnabled": True}}
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                agent.asked.append((self.path, body))
                text = json.dumps(agent.answer).encode()
                self.send_response(agent.status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/task"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def agent():
    agent = Agent()
    yield agent
    agent.server.shutdown()
    agent.server.server_close()


def test_ecs_is_asked_to_leave_the_task_of_a_long_job_alone(app, agent):
    worker = app.consume("--protect-after", 1, env={"ECS_AGENT_URI": agent.url})
    app.enqueue(("nap", {"seconds": 0.1}), ("nap", {"seconds": 3}))
    worker.wait("job.done", 2, method="nap")
    assert worker.wait("task.protected", method="nap", protected_minutes=10)
    wanted = {"ProtectionEnabled": True, "ExpiresInMinutes": 10}
    assert agent.asked == [("/api/task/task-protection/v1/state", wanted)]


def test_an_ecs_that_refuses_is_said_once_and_hurts_no_job(app, agent):
    agent.status, agent.answer = 400, {"failure": {"Reason": "AccessDeniedException"}}
    worker = app.consume("--protect-after", 1, env={"ECS_AGENT_URI": agent.url})
    app.enqueue(("nap", {"seconds": 3}))
    worker.wait("job.done", method="nap")
    (line,) = worker.named("courtesy.failed")
    assert "AccessDeniedException" in line["error"]
    assert "ecs:UpdateTaskProtection" in line["error"]


def test_an_ecs_that_hangs_holds_nothing(app, agent):
    agent.server.shutdown()
    status = app.folder / "status.json"
    worker = app.consume("--protect-after", 1, "--status-file", status, env={"ECS_AGENT_URI": agent.url})
    app.enqueue(("nap", {"seconds": 4}))
    worker.wait("courtesy.failed")
    assert time.time() - status.stat().st_mtime < 5
    worker.wait("job.done", method="nap")


def test_without_ecs_one_line_says_so(app):
    worker = app.consume("--protect-after", 1)
    assert worker.wait("task.not_protected")
