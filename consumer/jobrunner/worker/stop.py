"""The one way out: hands back what cannot end in time, settles the rest, ends the process; main thread.

All of it is a courtesy: SIGKILL in any line loses nothing.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import ExitCode
from jobrunner.outcome import failed, handed_back
from jobrunner.telemetry.metrics import Metrics
from jobrunner.worker.alone import Alone
from jobrunner.worker.deadman import DeadMansSwitch
from jobrunner.worker.health import StatusFile
from jobrunner.worker.lease import Leases, State
from jobrunner.worker.receiver import Receiver
from jobrunner.worker.settler import Settler
from jobrunner.worker.stacks import Stacks

#: How long running jobs may go on after SIGTERM, and the last requests after that: under 3 s in all.
GRACE_SECONDS, SETTLE_SECONDS = 1.5, 1.0
#: How soon a long poll of ours answers when what it waits for comes from ourselves.
ECHO_SECONDS = 0.4
#: How often the stop looks whether the last job has ended.
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Stop:
    """A wish to end the process: from a signal, a limit, an empty queue or a broken thread."""

    code: ExitCode
    grace_seconds: float


#: What the main thread waits on: a wish to end, or None for a wish to see what is going on (SIGUSR1).
Inbox = SimpleQueue[Stop | None]


class WayOut:
    """Takes the worker down, in order. `alone` is None in a process that runs one last attempt."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        receiver: Receiver,
        leases: Leases,
        settler: Settler,
        alone: Alone | None,
        stacks: Stacks,
        switch: DeadMansSwitch,
        status: StatusFile | None,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._inbox = inbox
        self._receiver = receiver
        self._leases = leases
        self._settler = settler
        self._alone = alone
        self._stacks = stacks
        self._switch = switch
        self._status = status
        self._metrics = metrics
        self._log = log

    def take(self, request: Stop) -> NoReturn:
        """End the process."""
        self._log.info("worker.stopping", reason=request.code.name.lower(), in_hand=len(self._leases))
        self._receiver.stop()
        if request.code is not ExitCode.RECYCLED:
            self._stop_children()
        self._receiver.hand_back(self._leases.all_in(State.WAITING))
        code = self._wait_for_jobs(request)
        if request.code is ExitCode.RECYCLED:
            self._stop_children()
        unfinished = self._leases.all_in(State.WAITING, State.RUNNING)
        for lease in unfinished:
            attempt = lease.delivery.attempt
            self._settler.settle(lease, failed("timed_out", attempt) if lease.overdue else handed_back(attempt))
        deadline = time.monotonic() + SETTLE_SECONDS
        self._settler.drain(deadline)
        if unfinished:
            self._take_echo(deadline)
        self._metrics.flush()
        self._log.info("worker.stopped", code=int(code), handed_back=len(unfinished), undeleted=len(self._leases))
        self._end(code)

    def _wait_for_jobs(self, request: Stop) -> ExitCode:
        """Let running jobs end within the grace; a later request may shorten it."""
        deadline = time.monotonic() + request.grace_seconds
        while time.monotonic() < deadline and self._is_busy():
            with suppress(Empty):
                if sooner := self._inbox.get(timeout=LOOK_SECONDS):
                    request, deadline = sooner, min(deadline, time.monotonic() + sooner.grace_seconds)
                else:
                    self._stacks.dump()
        return request.code

    def _stop_children(self) -> None:
        """Once only: a second signal would end them at once."""
        if self._alone:
            self._alone.stop()

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
