"""Django's own tasks as jobs: found in the main thread, called on workers' threads; imported only where `--django` is.

Works with Django 6's `django.tasks`, with its backport `django-tasks`, and for plain jobs where there is neither.
"""

import inspect
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import wraps
from typing import Any

import django
from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.db import connections, reset_queries
from django.utils import timezone
from django.utils.module_loading import module_has_submodule

from jobrunner.app.around import Around
from jobrunner.app.calling import check_returned, to_its_end
from jobrunner.app.catalog import Job, is_django_task, modules, public
from jobrunner.app.opening import import_failed, import_module
from jobrunner.app.raised import described, retry_wanted
from jobrunner.current import CurrentJob, current_job
from jobrunner.errors import AppError, AppImportFailed, NoSuchModule

try:
    from django.tasks import base, signals
except ModuleNotFoundError:
    with suppress(ModuleNotFoundError):
        from django_tasks import base, signals

#: Django's lines about each start and end of a task: ours say it. A failure goes to the admins by them.
LOGGERS = ("django.tasks", "django_tasks")
#: The modules where Django looks for an app's tasks.
MODULE = "tasks"


def set_up(settings_module: str) -> None:
    """Set Django up; raises AppError or AppImportFailed."""
    try:
        import_module(settings_module)
    except NoSuchModule:
        raise AppError(
            f"--django {settings_module!r}: no such module in {sys.path[0] or '.'}: "
            "give the project's settings, such as shop.settings"
        ) from None
    os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
    try:
        django.setup()
    except (Exception, SystemExit) as error:
        raise import_failed(settings_module, error) from error
    for name in LOGGERS:
        if not (logger := logging.getLogger(name)).level:  # unless the settings say so
            logger.setLevel(logging.WARNING)


def of_installed_apps() -> tuple[dict[str, Job], dict[str, str]]:
    """Give the tasks in the module or package `tasks` of each installed app, by their dotted path.

    And the modules of other people's apps that want what is not installed, such as another worker's library.
    """
    found: dict[str, Job] = {}
    left_out: dict[str, str] = {}
    for app in apps.get_app_configs():
        if module_has_submodule(app.module, MODULE):
            name = f"{app.name}.{MODULE}"
            try:
                found |= of_modules(name)
            except AppImportFailed as error:
                if not (isinstance(error.__cause__, ModuleNotFoundError) and "site-packages" in app.path):
                    raise
                left_out[name] = str(error.__cause__)
    return found, left_out


def is_app(module: str) -> bool:
    """Tell whether a module is one of the installed apps, and so no module of plain jobs."""
    return any(app.name == module for app in apps.get_app_configs())


def of_modules(name: str) -> dict[str, Job]:
    """Give the tasks of a module and of all below it."""
    tasks = [value for module in modules(name) for value in public(module).values() if is_django_task(value)]
    return {task.module_path: job_of(_as_defined(task)) for task in tasks}


def _as_defined(task: Any) -> Any:
    """Give the task as its `@task` has made it, and not what `using()` has made of that."""
    defined: Any = vars(sys.modules[task.func.__module__]).get(task.func.__name__)
    return defined if is_django_task(defined) and defined.func is task.func else task


def job_of(task: Any) -> Job:
    """Make a task's entry in the catalog: its context, if it takes one, is no param."""
    job = Job.of(task.module_path, task.func)
    parameters = list(job.signature.parameters.values())[1 if task.takes_context else 0 :]
    return replace(job, function=Run(task), signature=job.signature.replace(parameters=parameters), is_async=False)


class Run:
    """Calls a task as Django's own backends do, and tells Django's signals about it."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run an attempt; raises what the task raises.

        A coroutine ends on this thread as well, so that its database connections are those of `around`.
        """
        job = current_job()
        result = self._started(job, args, kwargs)
        words = (base.TaskContext(task_result=result), *args) if self._task.takes_context else args
        try:
            returned = self._task.call(*words, **kwargs)
            if inspect.isawaitable(returned):  # of a decorator that is no `async def`
                returned = async_to_sync(to_its_end)(returned)
            check_returned(returned)
        except BaseException as error:
            if _is_final(job, error):
                self._finished(result, status="FAILED", errors=[_error_of(error)])
            raise
        self._finished(result, status="SUCCESSFUL", _return_value=returned)

    def _started(self, job: CurrentJob, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        now = timezone.now()
        result = base.TaskResult(
            task=self._task,
            id=job.id,
            status=base.TaskResultStatus.RUNNING,
            enqueued_at=job.sent_at,
            started_at=now,
            last_attempted_at=now,
            finished_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self._task.backend,
            errors=[],
            # Django counts the attempts by them. Those before us may have been anybody.
            worker_ids=["unknown"] * (job.attempt - 1) + [f"{socket.gethostname()}:{os.getpid()}"],
        )
        self._tell(signals.task_started, result)
        return result

    def _finished(self, result: Any, *, status: str, **changes: Any) -> None:
        changes |= {"status": base.TaskResultStatus(status), "finished_at": timezone.now()}
        for name, value in changes.items():
            object.__setattr__(result, name, value)  # Django freezes it, and its own backends change it so
        self._tell(signals.task_finished, result)

    def _tell(self, signal: Any, result: Any) -> None:
        # A receiver that fails is Django's to log: the task's own end is another matter.
        signal.send_robust(type(self._task.get_backend()), task_result=result)


def _is_final(job: CurrentJob, error: BaseException) -> bool:
    """Tell whether no attempt follows this failure, as far as that is known while the job still runs."""
    if retry_wanted(error) is None:
        return True
    return job.attempts_max is not None and job.attempt >= job.attempts_max


def _error_of(error: BaseException) -> Any:
    kind = type(error)
    return base.TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=described(error))


class Connections(Around):
    """Does for each job what Django does for a request, and enters the app's own `--around` inside."""

    def __init__(self, own: Around | None) -> None:
        self._own = own

    def on_thread(self) -> AbstractContextManager[Any]:
        """Close old connections of the job's thread, before and after."""
        return self._entered()

    def on_loop(self) -> AbstractAsyncContextManager[Any]:
        """Leave the loop's thread alone: it has no connection, and those of `async def` jobs are checked with each."""
        return self._own.on_loop() if self._own else nullcontext()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        reset_queries()
        _close_old_connections()
        try:
            with self._own.on_thread() if self._own else nullcontext():
                yield
        finally:
            _close_old_connections()


def _close_old_connections() -> None:
    """Let no job find what another one left: a dropped connection, an open transaction, autocommit off."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            del connections[connection.alias]  # closed inside its block it would be of no use any more
            connection.close()
        else:
            connection.close_if_unusable_or_obsolete()


def with_connections(job: Job) -> Job:
    """Let an `async def` job survive a dropped connection: its queries run on a thread that `around` does not see."""
    return replace(job, function=_checked(job.function)) if job.is_async else job


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def checked(*args: Any, **kwargs: Any) -> Any:
        await sync_to_async(_close_broken_connections)()
        return await function(*args, **kwargs)

    return checked


def _close_broken_connections() -> None:
    # Not the old ones: all these jobs share the connections, and another one may be reading from them.
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred and not connection.is_usable():
            connection.close()
