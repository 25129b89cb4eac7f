"""docs/django.md, done as it says: tasks and plain jobs of a real project, on a real PostgreSQL.

`TASKS=1000` sends as many under kills and a restart of the database; CI sends a part.
"""

import os
import random
import subprocess
import time

import pytest
from servers import counts, wait_for

from jobrunner import enqueue_many

pytestmark = [
    pytest.mark.parametrize("server_url", ["elasticmq"], indirect=True),
    pytest.mark.parametrize("shop", ["django"], indirect=True),
]
TASKS = int(os.environ.get("TASKS", "60"))
KILLS = max(3, TASKS // 100)
THREADS = 8


def values(shop, column):
    return [value for (value,) in shop.postgres.ask(f'SELECT {column} FROM "order" ORDER BY number')]


def test_tasks_and_plain_jobs_of_each_kind_run_also_after_the_database_dropped_every_connection(shop):
    worker = shop.consume("--threads", 1)
    shop.order(1)
    worker.wait("job.done", method="shop.tasks.ship")
    ready = worker.named("worker.ready")[0]
    assert (ready["django"], ready["method_count"]) == ("shop.settings", 4)
    for again in (1, 2):
        shop.order(1, path="reminders")
        shop.app.enqueue(("orders.bill", [1]), ("orders.rate", [1]))
        for method in ("shop.tasks.remind", "orders.bill", "orders.rate"):
            worker.wait("job.done", again, method=method)
        shop.postgres.drop_connections()
    (row,) = shop.postgres.ask('SELECT shipped, reminded, billed, rated FROM "order"')
    assert row[:1] + row[2:] == (True, True, True)
    # Health checks spare the jobs on their own threads; those that share one lose an attempt, and not all to come.
    assert {line["method"] for line in worker.named("job.failed")} <= {"orders.rate"}
    assert len(worker.named("job.failed")) <= 1
    assert not [line for line in worker.lines if "Task id=" in line["event"]], "our own line says it"
    assert worker.stop()[0] == 0


def test_without_conn_max_age_a_connection_ends_with_its_job(shop):
    worker = shop.consume(CONN_MAX_AGE="0")
    shop.order(1)
    worker.wait("job.done", method="shop.tasks.ship")
    wait_for(lambda: "worker" not in shop.postgres.clients(), what="the end of the job's connection")


def test_the_pages_own_tests_pass_and_so_does_manage_py_check(shop):
    shop.run("manage.py", "test", "--noinput", timeout=120)
    said = shop.run("manage.py", "check", capture_output=True).stderr
    assert "queue 'slow' has no URL" in said
    shop.options["env"]["JOBRUNNER_QUEUE_URL"] = f"{shop.app.queue_url}.fifo"
    with pytest.raises(subprocess.CalledProcessError):
        shop.run("manage.py", "check")
    shop.options["env"]["JOBRUNNER_QUEUE_URL"] = shop.app.queue_url
    shell = "from shop.tasks import ship; print(ship.enqueue(1).id)"
    job_id = shop.run("manage.py", "shell", "-c", shell, capture_output=True).stdout.split()[-1]
    worker = shop.consume("--django", "shop.settings", told=False)
    worker.wait("job.failed", job_id=job_id, method="shop.tasks.ship")


def test_a_task_that_was_renamed_waits_and_one_that_cannot_be_imported_stops_the_worker(shop):
    worker = shop.consume()
    shop.app.enqueue(("shop.tasks.shipp", [1]))
    (line,) = worker.wait("job.unknown_method")
    assert "near misses: shop.tasks.ship" in line["error"]
    worker.stop()
    assert sum(shop.app.counts()) == 1
    (shop.app.folder / "shop" / "tasks.py").write_text("import nothing_of_that_name\n")
    worker = shop.consume()
    assert worker.end() == 3
    (refused,) = worker.named("worker.refused")
    assert "nothing_of_that_name" in refused["error"]


def test_a_last_failure_is_mailed_to_the_admins(shop, make_queue, server_url):
    shop.app.queue_url = url = make_queue(server_url, attempts_max=2)
    settings = shop.app.folder / "shop" / "settings.py"
    mails = shop.app.folder / "mails"
    backend = "django.core.mail.backends.filebased.EmailBackend"
    settings.write_text(
        f"{settings.read_text()}\nEMAIL_BACKEND = {backend!r}\nEMAIL_FILE_PATH = {str(mails)!r}\n"
        'ADMINS = [("A", "admin@example.com")]\n'
        'from django.utils.log import DEFAULT_LOGGING\nLOGGING = {**DEFAULT_LOGGING, "loggers": {\n'
        '    name: DEFAULT_LOGGING["loggers"]["django"] for name in ("django", "django_tasks")}}\n'
    )
    (shop.app.folder / "shop" / "tasks.py").write_text(
        (shop.app.folder / "shop" / "tasks.py").read_text() + "\n\n@task\ndef fail():\n"
        "    error = ValueError('spoilt')\n    error.retry_seconds = 1\n    raise error\n"
    )
    worker = shop.consume()
    enqueue_many([("shop.tasks.fail", [])], queue_url=url)
    worker.wait("job.given_up")
    (mail,) = wait_for(lambda: mails.exists() and list(mails.iterdir()), what="the mail")
    assert "Exception Value: spoilt" in mail.read_text()
    assert len(worker.named("job.failed")) == 2, "and one mail"


@pytest.mark.long
def test_kills_and_a_restart_of_the_database_lose_no_task(shop):
    url = shop.app.queue_url
    shop.postgres.ask(f'INSERT INTO "order" SELECT n, false, false, false, 0 FROM generate_series(1, {TASKS}) n')
    methods = ("shop.tasks.ship", "shop.tasks.remind", "orders.bill", "orders.rate")
    words = ("--threads", THREADS, "--visibility-timeout", 10)
    workers = [shop.consume(*words) for _ in range(2)]
    for worker in workers:
        worker.wait("worker.ready")
    enqueue_many([(method, [n]) for n in range(1, TASKS + 1) for method in methods], queue_url=url)
    most = 0
    for kill in range(KILLS):
        time.sleep(random.uniform(0.2, 1))
        most = max(most, shop.postgres.clients().count("worker"))
        if kill == KILLS // 2:
            shop.postgres.restart()
        victim = random.randrange(2)
        workers[victim].process.kill()
        workers[victim] = shop.consume(*words)
    wait_for(lambda: counts(url) == (0, 0, 0), 240, lambda: f"{counts(url)} {workers[0]}")
    print(f"{4 * TASKS} tasks and jobs, {KILLS} kills, at most {most} connections of 2 processes of {THREADS} threads")
    for column in ("shipped", "billed", "rated"):
        assert values(shop, column) == [True] * TASKS, column
    assert all(values(shop, "reminded"))
    assert counts(url, dead=True) == (0, 0, 0)
    # A thread keeps one, and all `async def` plain jobs share one; a killed worker's are closed by the server in time.
    assert most <= 2 * 2 * (THREADS + 1)
