"""Puts the rooms together, starts the threads, waits, and is the one way out; runs on the main thread."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from types import FrameType
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from consumer import catalog, sqs
from consumer.alone import Alone, OneDelivery
from consumer.coroutines import Coroutines
from consumer.deadman import DeadMansSwitch
from consumer.demand import Demand
from consumer.errors import ExitCode, JobrunnerError, LastingQueueError, QueueError
from consumer.execution import Around, Execution
from consumer.health import StatusFile
from consumer.keeper import Keeper, Renewal
from consumer.lease import Leases, State
from consumer.limits import JobLimit, MemoryLimit, PollWatch
from consumer.message import Delivery
from consumer.outage import Outage
from consumer.outcome import failed, handed_back
from consumer.pool import Pool
from consumer.receiver import Receiver
from consumer.settings import Settings, check_visibility_timeout
from consumer.settler import Settler

#: Overlapping receives and delete batches: at 10 to 20 ms each, more than one interpreter can use.
RECEIVERS, DELETERS = 4, 4
#: How long running jobs may go on after SIGTERM, and the last requests after that: under 3 s in all.
GRACE_SECONDS, SETTLE_SECONDS = 1.5, 1.0
#: How soon a long poll of ours answers when what it waits for comes from ourselves.
ECHO_SECONDS = 0.4
#: A thread whose answer has come waits this long for the interpreter while jobs compute (Python: 5 ms):
#: deletes must keep pace with jobs that take less than that.
SWITCH_SECONDS = 0.001
#: How often the stop looks whether the last job has ended.
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Stop:
    """A wish to end the process: from a signal, a limit, an empty queue or a broken thread."""

    code: ExitCode
    grace_seconds: float


def consume(settings: Settings, log: FilteringBoundLogger, only: Delivery | None = None) -> NoReturn:
    """Run the worker until something ends it, or just for one delivery; raises JobrunnerError if it cannot start.

    The queue comes before the app: what boto3 imports late must be imported before the app's files,
    which may have the same names, come first on `sys.path`.
    """
    if settings.status_file:  # a dead worker's: nothing is known of this one yet
        settings.status_file.unlink(missing_ok=True)
    queue, attributes = _connect(settings, log)
    visibility_seconds = settings.visibility_timeout_seconds or attributes.visibility_timeout_seconds
    check_visibility_timeout(visibility_seconds, "the queue's visibility timeout")
    catalog.open_app(settings.app_dir.resolve())
    jobs = catalog.load(settings.module)
    around = catalog.load_callable(settings.around) if settings.around else None
    runner = Runner(
        settings=settings,
        queue=queue,
        receive=OneDelivery(only).receive if only else queue.receive,
        attempts_max=attributes.attempts_max,
        alone=None if only else Alone(settings=settings, log=log),
        visibility_seconds=visibility_seconds,
        jobs=jobs,
        around=around,
        log=log,
    )
    log.debug("worker.alone", message_id=only.message_id) if only else log.info(
        "worker.ready",
        queue_url=settings.queue_url,
        module=settings.module,
        methods=len(jobs.jobs),
        threads=settings.threads,
        visibility_seconds=visibility_seconds,
        attempts_max=attributes.attempts_max,
    )
    runner.run()


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
        self._inbox: SimpleQueue[Stop] = SimpleQueue()
        self._signalled = False
        self._outage = outage = Outage(log=log)
        self._leases = leases = Leases(visibility_seconds=visibility_seconds)
        self._demand = demand = Demand(threads=settings.threads)
        self._coroutines = Coroutines()
        self._switch = DeadMansSwitch(visibility_seconds=visibility_seconds, in_hand=leases.__len__, log=log)
        renewing = Lock()
        self._settler = settler = Settler(
            queue=queue, leases=leases, renewing=renewing, running=demand.in_hand, outage=outage, log=log
        )
        execution = Execution(
            catalog=jobs,
            around=around,
            result_of=self._coroutines.result_of,
            attempts_max=attempts_max,
            log=log,
        )
        self._alone = alone
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
        )
        self._status = None
        if settings.status_file:
            self._status = StatusFile(path=settings.status_file, state=self._state, in_hand=leases.__len__)
        renewal = Renewal(queue=queue, leases=leases, renewing=renewing, alive=self._switch.arm, outage=outage, log=log)
        self._keeper = Keeper(duties=[self._switch.arm, self._hand_back_unstarted, renewal.renew, *self._watches()])

    def run(self) -> NoReturn:
        """Start every thread, wait for a reason to stop, stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        sys.setswitchinterval(SWITCH_SECONDS)
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
        self._stop(self._inbox.get())

    def _stop(self, request: Stop) -> NoReturn:
        """Take the one way out. All of it is a courtesy: SIGKILL in any line loses nothing."""
        self._log.info("worker.stopping", reason=request.code.name.lower(), in_hand=len(self._leases))
        self._receiver.stop()
        if self._alone:
            self._alone.stop()
        self._receiver.hand_back(self._leases.all_in(State.WAITING))
        code = self._wait_for_jobs(request)
        unfinished = self._leases.all_in(State.WAITING, State.RUNNING)
        for lease in unfinished:
            attempt = lease.delivery.attempt
            self._settler.settle(lease, failed("timed_out", attempt) if lease.overdue else handed_back(attempt))
        deadline = time.monotonic() + SETTLE_SECONDS
        self._settler.drain(deadline)
        if unfinished:
            self._take_echo(deadline)
        self._log.info("worker.stopped", code=int(code), handed_back=len(unfinished), undeleted=len(self._leases))
        self._end(code)

    def _wait_for_jobs(self, request: Stop) -> ExitCode:
        """Let running jobs end within the grace; a later request may shorten it."""
        deadline = time.monotonic() + request.grace_seconds
        while time.monotonic() < deadline and self._is_busy():
            with suppress(Empty):
                request = self._inbox.get(timeout=LOOK_SECONDS)
                deadline = min(deadline, time.monotonic() + request.grace_seconds)
        return request.code

    def _take_echo(self, deadline: float) -> None:
        """Give back again what our own last long poll caught of what we handed back: nobody else would see it."""
        echo_ends = min(deadline, time.monotonic() + ECHO_SECONDS)
        while self._receiver.is_out() and time.monotonic() < echo_ends:
            time.sleep(LOOK_SECONDS)
        self._settler.drain(deadline)

    def _is_busy(self) -> bool:
        running = [lease for lease in self._leases.all_in(State.RUNNING) if not lease.overdue]
        return bool(running) or self._receiver.may_bring_more()

    def _end(self, code: ExitCode) -> NoReturn:
        self._switch.close()
        if self._status:
            self._status.remove()
        # Children of jobs end with us. Only in a process group of our own, as under supervisord:
        # a shell's pipeline or a test runner would be hit as well.
        if os.getpgrp() == os.getpid() and not os.isatty(0):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)
        # A child has settled its message on the way here. No other code may say so: the job itself
        # may end its process with any.
        os._exit(code if self._alone else ExitCode.SETTLED)

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
                coroutine_stack=self._coroutines.stack_for,
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


def _connect(settings: Settings, log: FilteringBoundLogger) -> tuple[sqs.Queue, sqs.QueueAttributes]:
    """Reach the queue. What only time mends is waited out; the rest is the person's to mend, now."""
    outage = Outage(log=log)
    while True:
        try:
            answer = sqs.connect(
                settings.queue_url,
                wait_seconds=settings.wait_seconds,
                visibility_timeout_seconds=settings.visibility_timeout_seconds,
                connections=RECEIVERS + DELETERS + 3,
            )
        except LastingQueueError:
            raise
        except QueueError as error:
            outage.failed("start", error)
            time.sleep(outage.seconds_to_wait("start"))
        else:
            outage.succeeded("start")
            return answer
