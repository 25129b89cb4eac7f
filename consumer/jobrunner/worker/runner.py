"""Puts the rooms together, starts their threads, and waits; main thread."""

import gc
import sys
from collections.abc import Callable, Iterator
from functools import partial
from threading import Thread
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from jobrunner.app.around import Around
from jobrunner.app.calling import Caller
from jobrunner.app.catalog import Catalog
from jobrunner.app.coroutines import Coroutines
from jobrunner.errors import ExitCode, JobrunnerError
from jobrunner.queue.outage import Outage
from jobrunner.queue.paced import PacedQueue
from jobrunner.queue.requests import Queue
from jobrunner.settings import Settings
from jobrunner.telemetry.metrics import Metrics
from jobrunner.telemetry.spans import Spans
from jobrunner.worker import signals
from jobrunner.worker.alone import Alone
from jobrunner.worker.awaiting import Awaiting
from jobrunner.worker.deadman import DeadMansSwitch
from jobrunner.worker.execution import Execution
from jobrunner.worker.hand import Hand
from jobrunner.worker.health import StatusFile
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.keeper import keep, report
from jobrunner.worker.last_attempt import Order
from jobrunner.worker.limits import DescriptorWatch, JobLimit, LoopWatch, MemoryLimit
from jobrunner.worker.pool import Pool
from jobrunner.worker.protection import TaskProtection, ecs_agent
from jobrunner.worker.receiver import Receiver
from jobrunner.worker.settler import Settler
from jobrunner.worker.stacks import dump
from jobrunner.worker.stop import WayOut
from jobrunner.worker.visibility import Visibility

#: Overlapping receives and delete batches: at 10 to 20 ms each, more than one interpreter can use.
RECEIVERS, DELETERS = 6, 6
#: Of each client: every thread that may ask at the same time, and a spare.
CONNECTIONS = RECEIVERS + DELETERS + 3
#: A thread whose answer has come waits until each job that computes has had its turn: so long in all, as far as
#: turns can be short. Python's own turns are of 5 ms.
TURNS_SECONDS, TURN_SECONDS_MIN, TURN_SECONDS_MAX = 0.04, 0.001, 0.005


class Runner:
    """The composed worker: in hand, settle, work, intake, watch, way out."""

    def __init__(
        self,
        *,
        settings: Settings,
        queue: Queue,
        order: Order,
        output: int,
        jobs: Catalog,
        around: Around | None,
        log: FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._order = order
        self._log = log
        self._inbox = Inbox()
        self._hand = Hand(
            threads=settings.threads,
            async_jobs=settings.async_jobs,
            visibility_seconds=order.visibility_seconds,
            attempts_max=order.attempts_max,
        )
        self._spans = Spans.of(settings, log)
        self._metrics = Metrics.of(settings, methods=jobs.jobs, in_flight=self._hand.__len__)
        self._queue = PacedQueue(queue=queue, outage=Outage(log=log), metrics=self._metrics)
        self._settle()
        self._work(jobs, around, output)
        self._intake()
        self._watch()
        self._leave()

    def _settle(self) -> None:
        self._visibility = Visibility(queue=self._queue, hand=self._hand, metrics=self._metrics, log=self._log)
        self._settler = Settler(
            queue=self._queue, hand=self._hand, visibility=self._visibility, metrics=self._metrics, log=self._log
        )

    def _work(self, jobs: Catalog, around: Around | None, output: int) -> None:
        hand, settler, log = self._hand, self._settler, self._log
        self._coroutines = Coroutines()
        execution = Execution(
            catalog=jobs,
            caller=Caller(around=around, coroutines=self._coroutines),
            attempts_max=self._order.attempts_max,
            is_stopping=self._inbox.is_stopping,
            says_all=self._settings.watched,
            spans=self._spans,
            metrics=self._metrics,
            log=log,
        )
        alone = Alone(order=self._order, output=output, execution=execution, hand=hand, settler=settler, log=log)
        self._awaiting = Awaiting(
            execution=execution,
            coroutines=self._coroutines,
            hand=hand,
            settler=settler,
            most=self._settings.async_jobs,
            died=self._died,
        )
        self._pool = Pool(execution=execution, alone=alone, awaiting=self._awaiting, hand=hand, settler=settler)

    def _intake(self) -> None:
        settings, order = self._settings, self._order
        self._switch = DeadMansSwitch(
            owner=f"{order.settings.app_dir} {settings.module} {settings.queue_url}",
            visibility_seconds=order.visibility_seconds,
            in_hand=self._hand.__len__,
            log=self._log,
        )
        self._receiver = Receiver(
            queue=self._queue,
            wait_seconds=settings.wait_seconds,
            stop_when_empty=settings.stop_when_empty,
            hand=self._hand,
            settler=self._settler,
            pool=self._pool,
            switch=self._switch,
            inbox=self._inbox,
            log=self._log,
        )

    def _watch(self) -> None:
        path = self._settings.status_file
        url = self._settings.queue_url
        self._status = StatusFile(path=path, queue_url=url, state=self._state, hand=self._hand) if path else None
        self._dump = partial(dump, hand=self._hand, awaiting=self._awaiting, log=self._log)
        duties = [self._settler.hand_back_unstarted, self._visibility.renew_due, *self._limits()]
        self._keep = partial(keep, duties)
        self._report = partial(report, list(self._courtesies()), self._log)

    def _courtesies(self) -> Iterator[Callable[[], None]]:
        yield self._metrics.tick
        yield self._switch.stamp
        if self._status:
            yield self._status.write
        if seconds := self._settings.protect_after_seconds:
            if protect := ecs_agent():
                yield TaskProtection(hand=self._hand, after_seconds=seconds, protect=protect, log=self._log).renew
            else:
                self._log.warning("task.not_protected", why="--protect-after, and no ECS here (ECS_AGENT_URI)")

    def _limits(self) -> Iterator[Callable[[], None]]:
        inbox, log, settings = self._inbox, self._log, self._settings
        yield self._receiver.check
        yield DescriptorWatch(descriptor=self._switch.descriptor, inbox=inbox, log=log).check
        loop = LoopWatch(hand=self._hand, coroutines=self._coroutines, log=log)
        yield loop.check
        if seconds := settings.job_timeout_seconds:
            limit = JobLimit(
                hand=self._hand,
                loop=loop,
                awaiting=self._awaiting,
                limit_seconds=seconds,
                inbox=inbox,
                log=log,
            )
            yield limit.check
        if settings.max_memory_mb:
            yield MemoryLimit(limit_mb=settings.max_memory_mb, inbox=inbox, log=log).check

    def _leave(self) -> None:
        self._way_out = WayOut(
            inbox=self._inbox,
            recycle_seconds=self._settings.job_timeout_seconds or float("inf"),
            receiver=self._receiver,
            hand=self._hand,
            settler=self._settler,
            dump=self._dump,
            switch=self._switch,
            status=self._status,
            metrics=self._metrics,
            spans=self._spans,
            log=self._log,
        )

    def run(self) -> NoReturn:
        """Start every thread, wait for a reason to stop, stop."""
        signals.stay_ours(self._switch.descriptor)
        signals.heed(self._inbox)
        turn_seconds = TURNS_SECONDS / self._settings.threads
        sys.setswitchinterval(min(TURN_SECONDS_MAX, max(TURN_SECONDS_MIN, turn_seconds)))
        gc.freeze()  # what is loaded stays: no collection need look at it again
        gc.enable()
        for name, count, loop in self._loops():
            for index in range(count):
                self._spawn(name if count == 1 else f"{name}-{index + 1}", loop)
        while (wish := self._inbox.next()) is None:
            self._dump()
        self._way_out.take(wish)

    def _loops(self) -> list[tuple[str, int, Callable[[], None]]]:
        return [
            ("heartbeat", 1, self._switch.loop),
            ("coroutines", 1, self._coroutines.loop),
            ("keeper", 1, self._keep),
            ("reporter", 1, self._report),
            ("visibility", 1, self._visibility.line.loop),
            ("deleter", DELETERS, self._settler.deletes.loop),
            ("worker", self._settings.threads, self._pool.loop),
            ("receiver", RECEIVERS, self._receiver.loop),
        ]

    def _state(self) -> str:
        if self._way_out.is_taken:
            return "stopping"
        if self._queue.outage.is_on():
            return "unreachable, retrying"
        return "busy" if self._hand.busy() >= self._settings.threads else "polling"

    def _spawn(self, name: str, loop: Callable[[], None]) -> None:
        """Start a thread of ours; an error that leaves its loop ends the process."""

        def run() -> None:
            try:
                loop()
            except BaseException as error:
                self._died(name, error)

        Thread(target=run, name=name, daemon=True).start()

    def _died(self, name: str, error: BaseException) -> None:
        self._log.critical("thread.died", thread=name, exc_info=error)
        self._inbox.ask(error.exit_code if isinstance(error, JobrunnerError) else ExitCode.THREAD_DIED)
