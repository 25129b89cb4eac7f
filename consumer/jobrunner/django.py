"""Django's TASKS backend: `.enqueue()` of a `@task` puts it on the queue; runs on the web app's threads.

TASKS = {"default": {"BACKEND": "jobrunner.django.SQSBackend"}}
"""

import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from django.apps import apps
from django.core import checks
from django.db import transaction
from django.utils import timezone

from jobrunner.app import tasks
from jobrunner.app.catalog import Params, is_django_task
from jobrunner.errors import AppError, SettingsError
from jobrunner.sending import calls, inline
from jobrunner.sending.how import How
from jobrunner.sending.producer import prepared
from jobrunner.sending.writing import call_of
from jobrunner.settings import MODULE, check_queue_url

try:
    from django.tasks import base, signals
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.exceptions import InvalidTask
except ModuleNotFoundError:  # the backport
    from django_tasks import base, signals
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.exceptions import InvalidTaskError as InvalidTask

__all__ = ["SQSBackend"]
DEFAULT = base.DEFAULT_TASK_QUEUE_NAME


class SQSBackend(BaseTaskBackend):
    """Sends each task to the queue that `QUEUES` has for its name, by default to JOBRUNNER_QUEUE_URL.

    OPTIONS: `queue_url`, the default queue; `on_commit`, True to send when the transaction is through.
    Results are nowhere kept.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = False
    supports_priority = False

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        """Read what TASKS says of this backend; it is checked where it is used, and by `manage.py check`."""
        super().__init__(alias, params)
        given = params.get("QUEUES", {})
        named = given.items() if isinstance(given, Mapping) else ()
        self._urls: dict[str, str] = {name: url for name, url in named if url}
        if isinstance(given, Mapping):
            self.queues |= {DEFAULT}

    def validate_task(self, task: Any) -> None:
        """Raise InvalidTask for what this backend cannot do."""
        if task.priority:
            raise InvalidTask(
                f"priority is {task.priority}, and SQS has none: "
                "give such tasks a queue and workers of their own, @task(queue_name=...)"
            )
        if self.queues and task.queue_name not in self.queues:
            raise InvalidTask(f"there is no queue {task.queue_name!r}: TASKS names {_listed(self.queues)}")
        if task.func.__name__.startswith("_"):
            raise InvalidTask(f"{task.module_path} begins with an underscore: messages name what is public")
        super().validate_task(task)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Send a task; with `on_commit`, when the transaction of the default database is through.

        Raises what `jobrunner.enqueue` raises, InvalidTask, and TypeError for arguments that are not JSON.
        """
        self.validate_task(task)
        url = self._url(task.queue_name)
        result = base.TaskResult(
            task=task,
            id=str(uuid.uuid4()),
            status=base.TaskResultStatus.READY,
            enqueued_at=None,
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=args,
            kwargs=kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        signature = tasks.job_of(task).signature
        params = calls.params_of(task.module_path, signature, result.args, result.kwargs)
        send = partial(self._sent, result, self._prepared(result, params, url))
        if self.options.get("on_commit"):
            transaction.on_commit(send)
        else:
            send()
        return result

    def check(self, **_kwargs: Any) -> Iterator[checks.CheckMessage]:
        """Say what `manage.py check` should: queues without a usable URL, tasks that no worker will find."""
        for name in sorted(self.queues or {DEFAULT}):
            try:
                self._url(name)
            except InvalidTask as error:  # where it is only built or tested, it need not have one
                yield checks.Warning(f"TASKS[{self.alias!r}]: {error}", id="jobrunner.W001")
            except SettingsError as error:
                yield checks.Error(f"TASKS[{self.alias!r}], queue {name!r}: {error}", id="jobrunner.E001")
        try:
            found, _ = tasks.of_installed_apps()
        except AppError as error:
            yield checks.Error(str(error), id="jobrunner.E002")
            return
        for path in sorted(self._defined() - found.keys()):
            yield checks.Error(
                f"no worker will find the task {path}",
                hint=f"Define it in the module or package {tasks.MODULE!r} of an installed app, or import it there.",
                id="jobrunner.E003",
            )

    @staticmethod
    def _prepared(result: Any, params: Params, url: str) -> Callable[[], str]:
        run_after = result.task.run_after
        if run_after is not None and timezone.is_naive(run_after):  # USE_TZ = False
            run_after = timezone.make_aware(run_after)
        call = call_of(result.task.module_path, params, job_id=result.id, at=run_after)
        return prepared(call, How.checked(at=run_after), queue_url=url)

    def _sent(self, result: Any, send: Callable[[], str]) -> None:
        send()
        object.__setattr__(result, "enqueued_at", timezone.now())
        # It is sent: what a receiver does now must not look as if it were not.
        signals.task_enqueued.send_robust(type(self), task_result=result)

    def _url(self, queue_name: str) -> str:
        default = self.options.get("queue_url") or os.environ.get("JOBRUNNER_QUEUE_URL")
        urls = ({DEFAULT: default} if default else {}) | self._urls
        if queue_name not in urls:
            raise InvalidTask(
                f"queue {queue_name!r} has no URL: give it one in TASKS, QUEUES = {{{queue_name!r}: URL}}, and the "
                f"default one by OPTIONS['queue_url'] or JOBRUNNER_QUEUE_URL; those with one: {_listed(urls)}"
            )
        if urls[queue_name] == inline.URL:
            raise InvalidTask("inline: is for plain jobs: tests of tasks have Django's own ImmediateBackend")
        check_queue_url(urls[queue_name])
        return urls[queue_name]

    def _defined(self) -> set[str]:
        """Give the tasks of this backend that the modules of installed apps have."""
        homes = tuple(f"{app.name}." for app in apps.get_app_configs())
        plain = os.environ.get("JOBRUNNER_MODULE", MODULE)
        modules = [module for name, module in list(sys.modules.items()) if f"{name}.".startswith(homes)]
        values = [value for module in modules for value in list(vars(module).values())]
        return {
            value.module_path
            for value in values
            if is_django_task(value) and value.backend == self.alias and not value.module_path.startswith(f"{plain}.")
        }


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"
