"""Reaches the queue, loads the app, says what looks wrong, and runs the worker; main thread."""

import gc
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from jobrunner.app.catalog import Catalog
from jobrunner.app.loading import load_app, load_around
from jobrunner.app.opening import check_not_patched
from jobrunner.errors import LastingQueueError, QueueError
from jobrunner.operate import rules
from jobrunner.queue import requests as sqs
from jobrunner.queue.outage import Outage
from jobrunner.sending import producer  # noqa: F401 - jobs may enqueue: before the app's files come first
from jobrunner.settings import Settings, check_visibility_timeout
from jobrunner.telemetry import logs
from jobrunner.worker import signals
from jobrunner.worker.last_attempt import Order
from jobrunner.worker.runner import CONNECTIONS, Runner


def consume(settings: Settings, log: FilteringBoundLogger) -> NoReturn:
    """Run the worker until something ends it; raises JobrunnerError if it cannot start.

    The queue comes before the app: what boto3 imports late must be imported before the app's files,
    which may have the same names, come first on `sys.path`.
    """
    signals.end_at_once()  # nothing is in hand yet
    if settings.status_file:  # a dead worker's: nothing is known of this one yet
        with suppress(OSError):
            settings.status_file.unlink()
    output = os.dup(1)  # for the processes of last attempts: a job may close stdout
    queue, attributes = _connect(settings, log)
    visibility_seconds = settings.visibility_timeout_seconds or attributes.visibility_timeout_seconds
    check_visibility_timeout(visibility_seconds, "the queue's visibility timeout")
    jobs = load_app(app_dir=settings.app_dir, module=settings.module, django=settings.django)
    around = load_around(settings.around, django=settings.django)
    check_not_patched()
    order = _order(settings, attributes, visibility_seconds)
    runner = Runner(settings=settings, queue=queue, order=order, output=output, jobs=jobs, around=around, log=log)
    _say_ready(order, jobs, log)
    _warn(settings, attributes, visibility_seconds, jobs, log)
    runner.run()


def _order(settings: Settings, attributes: sqs.QueueAttributes, visibility_seconds: int) -> Order:
    """Write down what the process of a last attempt needs, once; it writes no status file."""
    own = replace(settings, app_dir=settings.app_dir.resolve(), status_file=None)
    return Order(settings=own, attempts_max=attributes.attempts_max, visibility_seconds=visibility_seconds)


def _say_ready(order: Order, jobs: Catalog, log: FilteringBoundLogger) -> None:
    log.info(
        "worker.ready",
        queue_url=order.settings.queue_url,
        module=order.settings.module,
        method_count=len(jobs.jobs),
        thread_count=order.settings.threads,
        visibility_seconds=order.visibility_seconds,
        attempts_max=order.attempts_max,
        **({"django": order.settings.django} if order.settings.django else {}),
    )


def _warn(
    settings: Settings,
    attributes: sqs.QueueAttributes,
    visibility_seconds: int,
    jobs: Catalog,
    log: FilteringBoundLogger,
) -> None:
    """Log what `jobrunner check` would say of the module and of the queue's own attributes: they are at hand."""
    of_queue = rules.of_queue(
        attributes.values,
        queue_url=settings.queue_url,
        visibility_seconds=visibility_seconds,
        job_timeout_seconds=settings.job_timeout_seconds,
    )
    of_app = (rules.of_methods(settings.module, len(jobs.jobs)), rules.of_logging(is_heard=logs.is_heard()))
    for finding in (*of_app, *of_queue):
        if finding.level != "ok":
            say = log.error if finding.level == "error" else log.warning
            say("check.finding", subject=finding.subject, value=finding.value, why=finding.why, cure=finding.cure)


def _connect(settings: Settings, log: FilteringBoundLogger) -> tuple[sqs.Queue, sqs.QueueAttributes]:
    """Reach the queue. What only time mends is waited out; the rest is the person's to mend, now."""
    outage = Outage(log=log)
    while True:
        try:
            answer = sqs.connect(
                settings.queue_url,
                wait_seconds=settings.wait_seconds,
                visibility_timeout_seconds=settings.visibility_timeout_seconds,
                connections=CONNECTIONS,
            )
        except LastingQueueError:
            raise
        except QueueError as error:
            gc.enable()  # this may take hours, and each try leaves clients and errors that hold each other
            outage.failed("start", error)
            time.sleep(outage.seconds_to_wait("start"))
        else:
            outage.succeeded("start")
            return answer
