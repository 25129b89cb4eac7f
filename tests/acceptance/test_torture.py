"""Workers killed at random under the shipped supervisord.conf, faults before a real ElasticMQ: nothing is lost.

`make torture` runs it at full size and prints the report; CI runs a bounded part.
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter

import pytest
from containers import Container
from proxy import Proxy
from servers import ROOT, ElasticMQ, counts, make_queue, skipping_what_is_not_here, wait_for

from jobrunner import enqueue_many

FULL = bool(os.environ.get("TORTURE"))
JOBS = 5_000 if FULL else 150
KILLS = 100 if FULL else 4
FAULTS = 200 if FULL else 3
PROCESSES = 4 if FULL else 2
VISIBILITY_SECONDS = 10
KINDS = ("reset", "unavailable", "throttle", "lost")

APP = """
import os, time
FILE = os.open(os.path.join(os.path.dirname(__file__), "notes.txt"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(*words):
    os.write(FILE, (" ".join(map(str, words)) + "\\n").encode())
def work(n, seconds):
    note("start", n, os.getpid(), time.monotonic())
    time.sleep(seconds)
    note("end", n, os.getpid(), time.monotonic())
"""

WEB = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"fine"]
"""

pytestmark = pytest.mark.timeout(1200 if FULL else 240)


@pytest.fixture
def elasticmq(tmp_path):
    """A server of this test's own: others must not see it die."""
    folder = tmp_path / "elasticmq"
    folder.mkdir()
    with skipping_what_is_not_here():
        server = ElasticMQ(folder, quick=not FULL).start()
    yield server
    server.kill()


@pytest.fixture
def proxy(elasticmq):
    between = Proxy(elasticmq.url, delay_seconds=0.01)
    yield between
    between.end_faults()
    between.refuse()


@pytest.fixture
def box(tmp_path, elasticmq, proxy):
    """Processes of sixteen threads under supervisord, behind the proxy."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "jobs.py").write_text(APP)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "__init__.py").touch()
    (tmp_path / "web" / "app.py").write_text(WEB)
    queue_url = make_queue(elasticmq.url, "torture", attempts_max=10, visibility_seconds=VISIBILITY_SECONDS)
    container = Container(
        tmp_path,
        queue_url,
        APP_DIR=str(tmp_path),
        JOBRUNNER_PROCESSES=str(PROCESSES),
        AWS_ENDPOINT_URL_SQS=proxy.url,
        JOBRUNNER_THREADS="16",
    )
    wait_for(lambda: container.log.read_text().count("worker.ready") == PROCESSES, 60, container.log.read_text)
    yield container
    container.stop()


def notes(box, kind):
    lines = (box.folder / "notes.txt").read_text().splitlines()
    return [(int(n), int(pid), float(at)) for word, n, pid, at in (line.split() for line in lines) if word == kind]


def in_hand(box, pid):
    """Jobs of a process that run, or ended so lately that their delete may not be through."""
    lately = time.monotonic() - 1.0
    ended = {n for n, by, at in notes(box, "end") if by == pid and at < lately}
    return {n for n, by, _ in notes(box, "start") if by == pid} - ended


def kill_one(box):
    """Kill a worker that has at least four jobs in hand; returns how many it had, or 0."""
    pids = box.worker_pids()
    random.shuffle(pids)
    for pid in pids:
        jobs = in_hand(box, pid)
        if len(jobs) >= 4:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return len(jobs)
    return 0


@pytest.mark.long
def test_every_job_runs_whatever_is_killed_and_whatever_fails(box, proxy):
    url = box.env["JOBRUNNER_QUEUE_URL"]
    began = time.monotonic()
    enqueue_many([("work", [n, random.uniform(0.2, 3)]) for n in range(JOBS)], queue_url=url)
    for kind in KINDS:
        proxy.fault(kind, share=0.05)
    kills, interrupted = 0, 0
    extra = JOBS
    while kills < KILLS or min(proxy.injected[kind] for kind in KINDS) < FAULTS:
        if counts(url)[0] < 60:  # keep them busy until all is inflicted
            enqueue_many([("work", [extra + n, 0.5]) for n in range(100)], queue_url=url)
            extra += 100
        hit = kill_one(box) if kills < KILLS else 0
        kills += bool(hit)
        interrupted += hit
        time.sleep(random.uniform(0.5, 1.2))
    inflicted = dict(proxy.injected)
    proxy.end_faults()
    wait_for(lambda: counts(url) == (0, 0, 0), 120, lambda: f"{counts(url)} {box.log.read_text()[-3000:]}")
    ran = Counter(n for n, _, _ in notes(box, "end"))
    started = Counter(n for n, _, _ in notes(box, "start"))
    again = sum(count - 1 for count in started.values())
    print(
        f"\ntorture: {extra} jobs, {kills} kills with {interrupted} jobs in hand, faults {inflicted}: "
        f"lost {extra - len(ran)}, dead letters {sum(counts(url, dead=True))}, started again {again} times "
        f"(at most {interrupted} + {inflicted['lost']} lost answers), "
        f"most often one job {max(started.values())} times, {time.monotonic() - began:.0f} s"
    )
    assert set(ran) == set(range(extra))
    assert counts(url, dead=True) == (0, 0, 0)
    assert again <= interrupted + 10 * inflicted["lost"]
    assert proxy.pick("x") is None


def test_restart_under_load_starts_every_interrupted_job_elsewhere_within_2_s(box):
    url = box.env["JOBRUNNER_QUEUE_URL"]
    wait_for(lambda: box.ctl("status", "jobrunner:*").count("RUNNING") == PROCESSES, 60, lambda: box.ctl("status"))
    enqueue_many([("work", [n, 15]) for n in range(16)], queue_url=url)
    wait_for(lambda: len(notes(box, "start")) == 16)
    victim = Counter(by for _, by, _ in notes(box, "start")).most_common(1)[0][0]
    interrupted = in_hand(box, victim)
    name = next(line.split()[0] for line in box.ctl("status").splitlines() if f"pid {victim}," in line)
    box.ctl("stop", name)  # returns when the process is gone
    gone = time.monotonic()
    again = wait_for(
        lambda: (found := {n for n, by, _ in notes(box, "start") if by != victim}) >= interrupted and found, 10
    )
    assert time.monotonic() - gone < 2
    assert again >= interrupted
    box.ctl("start", name)
    wait_for(lambda: counts(url) == (0, 0, 0), 40, lambda: counts(url))


def test_elasticmq_killed_and_started_again_is_recovered_from(box, elasticmq):
    url = box.env["JOBRUNNER_QUEUE_URL"]
    enqueue_many([("work", [n, 1]) for n in range(100)], queue_url=url)
    wait_for(lambda: len(notes(box, "end")) > 20)
    time.sleep(1)
    elasticmq.kill()
    time.sleep(3)
    elasticmq.start()
    wait_for(lambda: len({n for n, _, _ in notes(box, "end")}) == 100, 60, lambda: len(notes(box, "end")))
    wait_for(lambda: counts(url) == (0, 0, 0), 40, lambda: counts(url))
    assert box.log.read_text().count("sqs.outage") >= 1
