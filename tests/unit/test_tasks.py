"""Django's tasks: sent, found and called; on Django 6, or with the backport where Python is too old for it."""

import inspect
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobrunner import current, enqueue
from jobrunner.app import catalog, loading
from jobrunner.errors import AppError, BadParams, MalformedMessage, SettingsError
from jobrunner.message import Call, Delivery
from jobrunner.settings import Settings
from jobrunner.testing import enqueued

HERE = Path(__file__).parents[1] / "apps" / "tasks"
QUEUES = "https://sqs.eu-west-1.amazonaws.com/123456789012/"


@pytest.fixture(scope="session")
def bakery(tmp_path_factory):
    """Set Django up, once for a process, as the worker does; gives the catalog."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAKERY_DATABASE", str(tmp_path_factory.mktemp("bakery") / "database"))
        patch.setattr(sys, "path", [*sys.path])
        patch.setenv("DJANGO_SETTINGS_MODULE", "set up")
        found = loading.load_app(app_dir=HERE, module="jobs", django="bakery.settings")
        patch.delenv("DJANGO_SETTINGS_MODULE")  # it is done: other tests have projects of their own
        yield found


@pytest.fixture(autouse=True)
def no_project_for_others(monkeypatch):
    """What the worker tells Django, and the programs that it starts, is not for the next test."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "bakery.settings")


@pytest.fixture
def tasks(bakery):
    import bread.tasks

    bread.tasks.NOTES.clear()
    return bread.tasks


@pytest.fixture
def backend(bakery, settings):
    """Change what TASKS says of the backend; gives the backend."""

    def change(**params):
        from jobrunner.app.tasks import base

        settings(TASKS={"default": {"BACKEND": "jobrunner.django.SQSBackend", **params}})
        return sys.modules[base.__package__].task_backends["default"]

    return change


@pytest.fixture
def settings(bakery):
    from django.test import override_settings

    entered = []

    def change(**values):
        entered.append(override_settings(**values))
        entered[-1].enable()

    yield change
    for each in reversed(entered):
        each.disable()


@pytest.fixture
def told(bakery):
    """Collect what Django's signals tell."""
    from jobrunner.app.tasks import signals

    found = []

    def receiver(name):
        def receive(task_result, **_more):
            found.append((name, str(task_result.status), task_result.id))

        return receive

    receivers = {name: receiver(name) for name in ("task_enqueued", "task_started", "task_finished")}
    for name, receive in receivers.items():
        getattr(signals, name).connect(receive)
    yield found
    for name, receive in receivers.items():
        getattr(signals, name).disconnect(receive)


def run(bakery, method, *args, attempt=1, attempts_max=10, **kwargs):
    """Call a task as a worker would."""
    delivery = Delivery(message_id="m", receipt_handle="h", body="", attempt=attempt, sent_at=0.0)
    job = current.CurrentJob.of(Call(method=method, id="the-id"), delivery, attempts_max=attempts_max)
    token = current.running.set(job)
    try:
        return bakery.find(method).function(*args, **kwargs)
    finally:
        current.running.reset(token)


def test_the_tasks_of_all_apps_are_jobs_by_their_dotted_paths(bakery):
    # Beside those of a module `jobs`, where there is one on the path.
    assert sorted(name for name in bakery.jobs if name.startswith(("bread.", "cakes."))) == [
        "bread.tasks.bake",
        "bread.tasks.count",
        "bread.tasks.crumbs",
        "bread.tasks.mixed",
        "bread.tasks.placed",
        "bread.tasks.promise",
        "bread.tasks.rise",
        "cakes.cellar.store",  # imported in cakes/tasks
        "cakes.tasks.layers.stack",
    ]
    assert str(bakery.jobs["bread.tasks.count"].signature) == "(*words)", "the context is no param"
    assert not inspect.iscoroutinefunction(bakery.jobs["bread.tasks.rise"].function), "it ends on the job's thread"
    with pytest.raises(LookupError, match="near misses: bread.tasks.bake"):
        bakery.find("bread.tasks.bakes")
    with pytest.raises(LookupError, match="tasks of 'bakery.settings'"):
        bakery.find("os.system")


def test_what_is_sent_is_what_the_worker_finds(tasks, bakery, told):
    with enqueued() as jobs:
        result = tasks.bake.enqueue(3, kind="oat")
        tasks.rise.enqueue(minutes=5)
        tasks.count.enqueue("a", "b")
    bake, rise, count = jobs
    assert bake == ("bread.tasks.bake", {"loaves": 3, "kind": "oat"}), "by name, so that a task may change the order"
    assert (bake.id, bake.queue_url) == (result.id, f"{QUEUES}jobs")
    assert (rise.params, rise.queue_url) == ({"minutes": 5}, f"{QUEUES}slow")
    assert count.params == ["a", "b"], "what has no name goes by position"
    for job in jobs:
        bakery.find(job.method).bind(job.params)
    assert (str(result.status), result.attempts, result.enqueued_at is not None) == ("READY", 0, True)
    assert told[0] == ("task_enqueued", "READY", result.id)


async def awaited(task, *args):
    return await task.aenqueue(*args)


def test_async_views_await_it(tasks):
    from asgiref.sync import async_to_sync

    with enqueued() as jobs:
        async_to_sync(awaited)(tasks.bake, 1)
    assert jobs == [("bread.tasks.bake", {"loaves": 1})]


def test_later_is_a_delay_or_a_schedule(tasks, settings):
    soon, later = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (5, 60))
    with enqueued() as jobs:
        tasks.bake.using(run_after=soon).enqueue(1)
        tasks.bake.using(run_after=later).enqueue(2)
        settings(USE_TZ=False, TIME_ZONE="Europe/Berlin")
        tasks.bake.using(run_after=datetime(2040, 7, 1, 12)).enqueue(3)
    assert 290 <= jobs[0].delay_seconds <= 300
    assert (jobs[1].delay_seconds, jobs[1].at) == (None, later)
    assert jobs[2].at == datetime(2040, 7, 1, 10, tzinfo=UTC)


def test_what_sqs_cannot_do_is_refused_with_the_cure(tasks, backend, monkeypatch):
    from jobrunner.django import InvalidTask

    with pytest.raises(InvalidTask, match="priority is 5, and SQS has none: give such tasks a queue"):
        tasks.bake.using(priority=5)
    with pytest.raises(InvalidTask, match="no queue 'fast': TASKS names 'default', 'slow'"):
        tasks.bake.using(queue_name="fast")
    with pytest.raises(NotImplementedError):
        tasks.bake.get_result("id")
    with pytest.raises(TypeError, match="Unsupported type"):
        tasks.bake.enqueue(object())
    with pytest.raises(MalformedMessage, match="NaN|nan"):
        tasks.bake.enqueue(float("nan"))
    with pytest.raises(BadParams, match="missing a required argument: 'loaves'"):
        tasks.bake.enqueue()
    with pytest.raises(BadParams, match="multiple values"):
        tasks.bake.enqueue(1, loaves=2)
    with pytest.raises(BadParams, match="by name"):
        tasks.mixed.enqueue(1, 2, flag=True)
    with enqueued() as jobs:
        tasks.placed.enqueue(1, y=2)
    assert jobs[0].params == [1, 2]
    with pytest.raises(SettingsError, match="bread.tasks.bake is one of Django's tasks: call its own enqueue"):
        enqueue(tasks.bake, {"loaves": 1})
    monkeypatch.delenv("JOBRUNNER_QUEUE_URL", raising=False)
    backend(QUEUES=["default", "slow"])
    with pytest.raises(InvalidTask, match="queue 'slow' has no URL.*those with one: none"):
        tasks.rise.enqueue(1)
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", f"{QUEUES}variable")
    with enqueued() as jobs:
        tasks.bake.enqueue(1)
    assert jobs[0].queue_url == f"{QUEUES}variable"


def test_with_on_commit_it_goes_out_after_the_commit_and_never_after_a_rollback(tasks, backend):
    from django.db import transaction

    def sent(*, on_commit):
        backend(QUEUES={"slow": f"{QUEUES}slow"}, OPTIONS={"queue_url": f"{QUEUES}jobs", "on_commit": on_commit})
        with enqueued() as jobs:
            with transaction.atomic():
                tasks.bake.enqueue(1)
                before = len(jobs)
            after = len(jobs)
            with suppress(ZeroDivisionError), transaction.atomic():
                tasks.bake.enqueue(2)
                1 / 0  # noqa: B018 - it raises
            tasks.bake.enqueue(3)
            return before, after, len(jobs)

    assert sent(on_commit=True) == (0, 1, 2)
    assert sent(on_commit=False) == (1, 1, 3)


def test_a_task_is_called_as_django_says_and_its_signals_are_honest(bakery, tasks, told):
    run(bakery, "bread.tasks.bake", 2, kind="rye")
    run(bakery, "bread.tasks.rise", minutes=7)
    assert tasks.NOTES == ["2 rye", 7]
    run(bakery, "bread.tasks.count", "a", attempt=3)
    attempt, words, result = tasks.NOTES[-1]
    assert (attempt, words, result.return_value, result.id) == (3, ("a",), 1, "the-id")
    each = [("task_started", "RUNNING"), ("task_finished", "SUCCESSFUL")]
    assert [(name, status) for name, status, _ in told] == each * 3
    told.clear()
    with pytest.raises(ValueError, match="burnt"):
        run(bakery, "bread.tasks.count", "burn")
    assert [name for name, _, _ in told] == ["task_started"], "it will be tried again"
    with pytest.raises(ValueError, match="burnt"):
        run(bakery, "bread.tasks.count", "burn", attempt=10)
    assert told[-1][:2] == ("task_finished", "FAILED")
    (error,) = tasks.NOTES[-1][-1].errors
    assert (error.exception_class, "burnt" in error.traceback) == (ValueError, True)


def test_a_task_that_gives_up_is_finished(bakery, tasks, told, monkeypatch):
    error = ValueError("gone")
    error.retry_seconds = None
    monkeypatch.setattr(tasks, "helper", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(ValueError, match="gone"):
        run(bakery, "bread.tasks.bake", 1)
    assert told[-1][:2] == ("task_finished", "FAILED")


def test_an_exception_that_cannot_say_what_it_is_stays_the_tasks_own(bakery, tasks, told, monkeypatch):
    class UnspeakableError(Exception):
        def __str__(self):
            raise ValueError("no words")

    monkeypatch.setattr(tasks, "helper", lambda *_: (_ for _ in ()).throw(UnspeakableError))
    with pytest.raises(UnspeakableError):
        run(bakery, "bread.tasks.bake", 1, attempt=10)
    assert told[-1][:2] == ("task_finished", "FAILED")


def test_what_a_task_returns_is_seen_to_its_end(bakery, tasks):
    """As a plain job's: a decorator that is no `async def` gives a coroutine, and a generator has not run."""
    run(bakery, "bread.tasks.promise", 4)
    assert tasks.NOTES == [4]
    with pytest.raises(RuntimeError, match="returned a generator"):
        run(bakery, "bread.tasks.crumbs")


def test_errors_of_the_call_come_before_the_commit(tasks, backend):
    from django.db import transaction

    backend(OPTIONS={"queue_url": f"{QUEUES}jobs", "on_commit": True})
    with transaction.atomic(), pytest.raises(MalformedMessage, match="nan|NaN"):
        tasks.bake.enqueue(float("nan"))


def test_a_queues_name_means_the_same_in_each_worker(monkeypatch):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", f"{QUEUES}jobs")
    slow = Settings(queue_url=f"{QUEUES}slow", django="bakery.settings")
    assert "JOBRUNNER_QUEUE_URL" not in slow.variables()
    monkeypatch.delenv("JOBRUNNER_QUEUE_URL")
    assert slow.variables()["JOBRUNNER_QUEUE_URL"] == f"{QUEUES}slow"


def test_other_peoples_apps_may_have_tasks_for_another_worker(bakery, tmp_path, settings, monkeypatch):
    package = tmp_path / "site-packages" / "theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text("from not_installed import shared_task\n")
    monkeypatch.syspath_prepend(package.parent)
    settings(INSTALLED_APPS=["bread", "theirs"])
    found = loading.load_app(app_dir=HERE, module="jobs", django="bakery.settings")
    assert "not_installed" in found.left_out["theirs.tasks"]
    package.rename(tmp_path / "theirs")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("theirs", "theirs.tasks"):
        sys.modules.pop(name, None)
    settings(INSTALLED_APPS=["bread", "theirs"])
    with pytest.raises(AppError, match="not_installed"):
        loading.load_app(app_dir=HERE, module="jobs", django="bakery.settings")


def test_an_app_called_jobs_has_only_its_tasks(bakery, tmp_path, settings, monkeypatch):
    package = tmp_path / "jobs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "views.py").write_text("def delete_all(request):\n    pass\n")
    (package / "tasks.py").write_text("from bakery import task\n\n\n@task\ndef post():\n    pass\n")
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == "jobs"]:
            patch.delitem(sys.modules, name)
        patch.syspath_prepend(tmp_path)
        settings(INSTALLED_APPS=["bread", "jobs"])
        found = loading.load_app(app_dir=tmp_path, module="jobs", django="bakery.settings")
        assert "jobs.tasks.post" in found.jobs
        assert not [name for name in found.jobs if "delete_all" in name]
        for name in [name for name in sys.modules if name.split(".")[0] == "jobs"]:
            del sys.modules[name]


def test_a_receiver_that_fails_is_not_the_tasks_failure(bakery, tasks):
    from jobrunner.app.tasks import signals

    def broken(**_more):
        raise RuntimeError("receiver")

    signals.task_finished.connect(broken)
    try:
        run(bakery, "bread.tasks.bake", 2)
    finally:
        signals.task_finished.disconnect(broken)
    assert tasks.NOTES == ["2 rye"]


def test_manage_py_check_names_what_would_not_work(tasks, backend, monkeypatch):
    def said(**params):
        return [(each.id, each.msg) for each in backend(**params).check()]

    monkeypatch.delenv("JOBRUNNER_QUEUE_URL", raising=False)
    (lost,) = said(OPTIONS={"queue_url": f"{QUEUES}jobs"})
    assert lost == ("jobrunner.E003", "no worker will find the task cakes.cellar.forget")
    (missing, _) = said()
    assert (missing[0], "queue 'default' has no URL" in missing[1]) == ("jobrunner.W001", True)
    (fifo, _) = said(OPTIONS={"queue_url": f"{QUEUES}jobs.fifo"})
    assert (fifo[0], "FIFO" in fifo[1]) == ("jobrunner.E001", True)
    (inline, _) = said(OPTIONS={"queue_url": "inline:"})
    assert (inline[0], "ImmediateBackend" in inline[1]) == ("jobrunner.W001", True), "tests may run with it"
    slow, _ = said(QUEUES={"slow": ""}, OPTIONS={"queue_url": f"{QUEUES}jobs"})
    assert "queue 'slow'" in slow[1]


def test_djangos_own_backends_for_tests_take_the_same_code(tasks, settings):
    from jobrunner.app.tasks import base

    package = base.__package__
    settings(TASKS={"default": {"BACKEND": f"{package}.backends.immediate.ImmediateBackend", "QUEUES": []}})
    tasks.bake.enqueue(1)
    tasks.count.enqueue("a")
    assert [tasks.NOTES[0], tasks.NOTES[1][0]] == ["1 rye", 1]
    settings(TASKS={"default": {"BACKEND": f"{package}.backends.dummy.DummyBackend", "QUEUES": []}})
    tasks.bake.enqueue(2)
    (result,) = sys.modules[package].task_backends["default"].results
    assert (result.task.module_path, result.args) == ("bread.tasks.bake", [2])


def test_a_task_among_plain_jobs_is_said_or_run(bakery, tmp_path, monkeypatch):
    (tmp_path / "mixed.py").write_text(
        "from bakery import task\nfrom bread.tasks import bake\n\n\n@task\ndef ship():\n    pass\n\n\n"
        "async def plain():\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = catalog.load("mixed")
    assert list(found.jobs) == ["plain"]
    assert list(found.left_out) == ["ship"], "not what is imported"
    assert "consume --django SETTINGS" in found.left_out["ship"]
    with pytest.raises(LookupError, match="one of Django's tasks"):
        found.find("ship")
    both = loading.load_app(app_dir=tmp_path, module="mixed", django="bakery.settings")
    assert {"plain", "mixed.ship", "bread.tasks.bake"} <= both.jobs.keys()
    assert both.left_out == {}


def test_what_django_cannot_load_stops_the_worker_with_the_reason(bakery, tmp_path, monkeypatch):
    with pytest.raises(AppError, match="--django 'shop.setings': no such module in .*: give the project's settings"):
        loading.load_app(app_dir=tmp_path, module="jobs", django="shop.setings")
    with pytest.raises(AppError, match="no module 'jobz'"):
        loading.load_app(app_dir=tmp_path, module="jobz", django="bakery.settings")


def test_no_job_finds_what_another_left_in_the_database(bakery):
    from django.db import connection, transaction

    around = loading.load_around(None, django="bakery.settings").on_thread
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bread (kind text)")
    with around():
        transaction.atomic().__enter__()
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO bread VALUES ('rolled back')")
    with around():
        assert not connection.in_atomic_block
        transaction.set_autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO bread VALUES ('rolled back')")
    with around(), connection.cursor() as cursor:
        assert transaction.get_autocommit()
        assert cursor.execute("SELECT count(*) FROM bread").fetchone() == (0,)


def test_around_is_entered_inside_djangos(bakery, tmp_path, monkeypatch):
    (tmp_path / "scopes.py").write_text(
        "from contextlib import contextmanager\n\nfrom django.db import connection\n\n\n"
        "@contextmanager\ndef scope():\n    yield connection.vendor\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with loading.load_around("scopes:scope", django="bakery.settings").on_thread():
        pass
    with pytest.raises(ZeroDivisionError), loading.load_around("scopes:scope", django="bakery.settings").on_thread():
        1 / 0  # noqa: B018 - it raises
