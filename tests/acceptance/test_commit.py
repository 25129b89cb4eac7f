"""docs/outbox.md and docs/idempotency.md, done as they say, on a real PostgreSQL, with kill -9 and repeats."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter

import pages
import psycopg
import psycopg.types.json
import pytest
from servers import ROOT, client_of, wait_for
from workers import PROGRAM

from jobrunner import enqueue
from jobrunner.message import decode

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
]
#: Full size: OUTBOX_ORDERS=5000 REPEATED_JOBS=1000.
ORDERS, JOBS = int(os.environ.get("OUTBOX_ORDERS", "150")), int(os.environ.get("REPEATED_JOBS", "60"))
KILLS = 12
PLACE = """
import sys
from shop import orders
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    orders.place(number)
"""


@pytest.fixture
def shop(app, postgres, monkeypatch):
    """An app with the code of both pages, and their tables."""
    (app.folder / "jobs.py").unlink()
    shutil.copytree(ROOT / "tests" / "apps" / "outbox", app.folder, dirs_exist_ok=True)
    tables = [
        "CREATE TABLE orders (number int PRIMARY KEY)",
        "CREATE TABLE accounts (number int PRIMARY KEY, cents int)",
    ]
    for name in ("outbox", "idempotency"):
        page = (ROOT / "docs" / f"{name}.md").read_text()
        tables += pages.blocks(page, "sql")
        for file, text in pages.files(page).items():
            app.write(file, text)
    app.database = f"postgresql://{postgres.address}"
    with psycopg.connect(app.database) as connection:
        for table in tables:
            connection.execute(table)
    app.env = {"DATABASE": app.database, "JOBRUNNER_QUEUE_URL": app.queue_url, "PYTHONPATH": str(app.folder)}
    return app


@pytest.mark.long
def test_no_order_is_without_its_job_whenever_the_process_is_killed(shop, postgres):
    """Killed at random times, many of them between a commit and its send; what was left the cron's job sends."""
    kills = [random.randrange(ORDERS) for _ in range(KILLS)]
    looking = psycopg.connect(shop.database, autocommit=True)
    while (placed := orders(looking)) < ORDERS:
        command = [sys.executable, "-c", PLACE, str(placed), str(ORDERS)]
        process = subprocess.Popen(command, env={**os.environ, **shop.env})
        at = min((kill for kill in kills if kill > placed), default=None)
        while process.poll() is None and at is not None:
            time.sleep(random.uniform(0, 0.01))
            if orders(looking) >= at:
                process.kill()
                break
        process.wait(300)
    looking.close()
    with psycopg.connect(shop.database) as connection:  # and one that died just after its commit
        connection.execute("INSERT INTO orders VALUES (%s)", [ORDERS])
        params = psycopg.types.json.Jsonb({"number": ORDERS})
        connection.execute("INSERT INTO outbox (method, params) VALUES ('orders.ship', %s)", [params])
    command = [sys.executable, "-c", "from jobs import outbox; outbox.flush()"]
    subprocess.run(command, check=True, env={**os.environ, **shop.env}, cwd=shop.folder)
    assert postgres.ask("SELECT count(*) FROM outbox") == [(0,)]
    ids = {}
    for call in received(shop.queue_url):
        ids.setdefault(call.params["number"], []).append(call.id)
    assert sorted(ids) == list(range(ORDERS + 1)), "none lost"
    assert all(len(set(same)) == 1 for same in ids.values()), "repeats under the same id"
    repeats = sum(map(len, ids.values())) - len(ids)
    assert repeats <= KILLS
    print(f"{ORDERS} orders, {KILLS} kills, {repeats} sent twice")


def orders(connection):
    return connection.execute("SELECT count(*) FROM orders").fetchone()[0]


def received(url):
    client = client_of("/".join(url.split("/")[:3]))
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600).get(
        "Messages"
    ):
        yield from (decode(message["Body"]) for message in messages)


IN_DJANGO = """
import os
from urllib.parse import urlsplit
from django.conf import settings
parts = urlsplit(os.environ["DATABASE"])
where = {"NAME": parts.path[1:], "USER": parts.username or "", "HOST": parts.hostname, "PORT": parts.port}
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **where}})
from django.db import transaction
from shop import in_django
in_django.place(1)
try:
    with transaction.atomic():
        in_django.place(2)
        raise ValueError
except ValueError:
    pass
os.environ["JOBRUNNER_QUEUE_URL"] = "http://127.0.0.1:1/1/jobs"
in_django.place(3)
"""


def test_in_django_a_job_goes_out_after_the_commit_and_never_after_a_rollback(shop, postgres):
    """And an SQS that does not answer leaves the order in, and its job for the cron."""
    environment = {**os.environ, **shop.env, "JOBRUNNER_ENQUEUE_SECONDS": "2"}
    subprocess.run([sys.executable, "-c", IN_DJANGO], check=True, env=environment)
    assert [call.params for call in received(shop.queue_url)] == [{"number": 1}]
    assert postgres.ask("SELECT number FROM orders ORDER BY number") == [(1,), (3,)]
    assert postgres.ask("SELECT count(*) FROM outbox") == [(1,)]


def test_two_that_flush_at_once_take_other_rows_and_bad_rows_hold_up_nobody(shop, postgres):
    with psycopg.connect(shop.database, autocommit=True) as connection:
        for _ in range(101):
            connection.execute("INSERT INTO outbox (method, params) VALUES ('no name', '{}')")
        for number in range(250):
            params = psycopg.types.json.Jsonb({"number": number})
            connection.execute("INSERT INTO outbox (method, params) VALUES ('orders.ship', %s)", [params])
    command = [sys.executable, "-c", "from jobs import outbox; outbox.flush()"]
    both = [subprocess.Popen(command, env={**os.environ, **shop.env}, cwd=shop.folder) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert sorted(call.params["number"] for call in received(shop.queue_url)) == list(range(250))
    ((method, refused, count),) = postgres.ask("SELECT method, refused, count(*) FROM outbox GROUP BY 1, 2")
    assert (method, count) == ("no name", 101)
    assert "is not dotted" in refused


def test_the_pages_cron_is_one(shop, monkeypatch):
    page = (ROOT / "docs" / "outbox.md").read_text()
    shop.write("jobs/crons.toml", pages.blocks(page, "toml")[0])
    command = [*PROGRAM, "crons", "list", "--app-dir", str(shop.folder)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **shop.env}).stdout
    assert "outbox.flush" in listed


@pytest.mark.long
def test_a_job_that_comes_three_times_has_its_effect_once(shop, postgres):
    accounts = JOBS
    with psycopg.connect(shop.database) as connection:
        connection.cursor().executemany("INSERT INTO accounts VALUES (%s, 0)", [[n] for n in range(accounts)])
    calls = [number for number in range(accounts) for _ in range(3)]
    for number in calls:
        params = {"account": number, "cents": 100}
        enqueue("payments.book", params, id=f"payment-{number}", queue_url=shop.queue_url)
    worker = shop.consume("--threads", 8, env=shop.env)
    worker.wait("job.done", len(calls), seconds=240)
    effects = Counter(cents for (cents,) in postgres.ask("SELECT cents FROM accounts"))
    assert effects == {100: accounts}
    wait_for(lambda: shop.counts() == (0, 0, 0))
