"""Puts the rooms together, starts their threads, and waits; main thread."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from types import FrameType
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from jobrunner.app import catalog
from jobrunner.app.around import Around
from jobrunner.app.coroutines import Coroutines
from jobrunner.errors import ExitCode, JobrunnerError
from jobrunner.message import Delivery
from jobrunner.queue import requests as sqs
from jobrunner.queue.outage import Outage
from jobrunner.settings import Settings
from jobrunner.telemetry.logs import LineWriter
from jobrunner.telemetry.metrics import Metrics
from jobrunner.worker.alone import Alone
from jobrunner.worker.deadman import DeadMansSwitch
from jobrunner.worker.demand import Demand
from jobrunner.worker.execution import Execution
from jobrunner.worker.health import StatusFile
from jobrunner.worker.keeper import Keeper, Renewal
from jobrunner.worker.lease import Leases
from jobrunner.worker.limits import JobLimit, MemoryLimit, PollWatch
from jobrunner.worker.pool import Pool
from jobrunner.worker.receiver import Receiver
from jobrunner.worker.settler import Settler
from jobrunner.worker.stacks import Stacks
from jobrunner.worker.stop import GRACE_SECONDS, Inbox, Stop, WayOut

#: Overlapping receives and delete batches: at 10 to 20 ms each, more than one interpreter can use.
RECEIVERS, DELETERS = 4, 4
#: Of each client: every thread that may ask at the same time, and the releaser, the keeper and a spare.
CONNECTIONS = RECEIVERS + DELETERS + 3
#: A thread whose answer has come waits this long for the interpreter while jobs compute (Python: 5 ms):
#: deletes must keep pace with jobs that take less than that.
SWITCH_SECONDS = 0.001


class Runner:
    """The composed worker: what it starts, and how it ends."""

    def __init__(
        self,
        *,
        settings: Settings,
        queue: sqs.Queue,
        receive: Callable[..., list[Delivery]],
        attempts_max: int | None,
        alone: Alone | None,
        visibility_seconds: int,
        jobs: catalog.Catalog,
        around: Around | None,
        log: FilteringBoundLogger,
    ) -> None:
        self._log = log
        self._settings = settings
        self._inbox: Inbox = SimpleQueue()
        self._signalled = False
        self._outage = outage = Outage(log=log)
        self._leases = leases = Leases(visibility_seconds=visibility_seconds)
        self._demand = demand = Demand(threads=settings.threads)
        self._coroutines = Coroutines()
        self._stacks = Stacks(leases=leases, coroutine_stack=self._coroutines.stack_for, log=log)
        queue_name = settings.queue_url.rpartition("/")[2]
        write = LineWriter(os.dup(1)).write if settings.metrics == "emf" else _discard
        self._metrics = metrics = Metrics(queue_name=queue_name, in_flight=leases.__len__, write=write)
        self._switch = DeadMansSwitch(visibility_seconds=visibility_seconds, in_hand=leases.__len__, log=log)
        renewing = Lock()
        self._settler = settler = Settler(
            queue=queue,
            leases=leases,
            renewing=renewing,
            running=demand.in_hand,
            outage=outage,
            metrics=metrics,
            log=log,
        )
        execution = Execution(
            catalog=jobs,
            around=around,
            result_of=self._coroutines.result_of,
            attempts_max=attempts_max,
            metrics=metrics,
            log=log,
        )
        self._pool = Pool(
            run=execution.run,
            run_alone=alone.run if alone else execution.run,
            attempts_max=attempts_max,
            leases=leases,
            settler=settler,
            demand=demand,
        )
        self._receiver = Receiver(
            receive=receive,
            wait_seconds=settings.wait_seconds,
            demand=demand,
            leases=leases,
            settler=settler,
            submit=self._pool.submit,
            on_admitted=self._switch.arm_first,
            on_empty=self._on_empty,
            outage=outage,
            metrics=metrics,
        )
        path = settings.status_file
        self._status = StatusFile(path=path, state=self._state, in_hand=leases.__len__) if path else None
        renewal = Renewal(
            queue=queue,
            leases=leases,
            renewing=renewing,
            alive=self._switch.arm,
            outage=outage,
            metrics=metrics,
            log=log,
        )
        self._keeper = Keeper(
            duties=[self._switch.arm, self._hand_back_unstarted, renewal.renew, metrics.tick, *self._watches()]
        )
        self._way_out = WayOut(
            inbox=self._inbox,
            receiver=self._receiver,
            leases=leases,
            settler=settler,
            alone=alone,
            stacks=self._stacks,
            switch=self._switch,
            status=self._status,
            metrics=metrics,
            log=log,
        )

    def run(self) -> NoReturn:
        """Start every thread, wait for a reason to stop, stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGUSR1, lambda *_: self._inbox.put(None))
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.freeze()  # what is loaded stays: no collection need look at it again
        gc.enable()
        self._spawn("coroutines", self._coroutines.loop)
        self._spawn("keeper", self._keeper.loop)
        self._spawn("releaser", self._settler.releases.loop)
        for count, name, loop in (
            (DELETERS, "deleter", self._settler.deletes.loop),
            (self._settings.threads, "worker", self._pool.loop),
            (RECEIVERS, "receiver", self._receiver.loop),
        ):
            for index in range(count):
                self._spawn(f"{name}-{index + 1}", loop)
        while (request := self._inbox.get()) is None:
            self._stacks.dump()
        self._way_out.take(request)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Only a put: a lock taken in a handler may be held by the very code it interrupted.
        if self._signalled:
            os._exit(ExitCode.SECOND_SIGNAL)
        self._signalled = True
        self._inbox.put(Stop(ExitCode.STOPPED, GRACE_SECONDS))

    def _request_stop(self, code: ExitCode) -> None:
        grace_seconds = GRACE_SECONDS
        if code is ExitCode.RECYCLED:  # nothing is wrong: every job may use its own limit
            grace_seconds = self._settings.job_timeout_seconds or float("inf")
        self._inbox.put(Stop(code, grace_seconds))

    def _on_empty(self) -> None:
        if self._settings.stop_when_empty and not self._demand.in_hand():
            self._request_stop(ExitCode.STOPPED)

    def _hand_back_unstarted(self) -> None:
        self._receiver.hand_back(self._leases.unstarted_too_long())

    def _watches(self) -> list[Callable[[], None]]:
        """List the keeper's other duties."""
        stop, log, settings = self._request_stop, self._log, self._settings
        watches = [PollWatch(receiver=self._receiver, stop=stop, log=log).check]
        if settings.job_timeout_seconds:
            limit = JobLimit(
                leases=self._leases,
                limit_seconds=settings.job_timeout_seconds,
                stacks=self._stacks,
                stop=stop,
                log=log,
            )
            watches.append(limit.check)
        if settings.max_memory_mb:
            watches.append(MemoryLimit(limit_mb=settings.max_memory_mb, stop=stop, log=log).check)
        if self._status:
            watches.append(self._status.write)
        return watches

    def _state(self) -> str:
        if self._outage.includes("receive"):
            return "unreachable"
        return "busy" if self._demand.in_hand() >= self._settings.threads else "polling"

    def _spawn(self, name: str, loop: Callable[[], None]) -> None:
        """Start a thread of ours; an error that leaves its loop ends the process."""

        def run() -> None:
            try:
                loop()
            except BaseException as error:
                code = error.exit_code if isinstance(error, JobrunnerError) else ExitCode.THREAD_DIED
                self._log.critical("thread.died", thread=name, exc_info=error)
                self._request_stop(code)

        Thread(target=run, name=name, daemon=True).start()


def _discard(_line: str) -> None:
    """Stand in for a writer where nobody wants the lines."""
