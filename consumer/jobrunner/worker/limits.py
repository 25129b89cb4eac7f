"""What is watched, and ends the process: the loop, a job over its time, memory; on the keeper's thread."""

import os
import time
from contextlib import suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from jobrunner.app.coroutines import Coroutines, stack_of_thread
from jobrunner.errors import ExitCode
from jobrunner.worker.awaiting import Awaiting
from jobrunner.worker.hand import Hand
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.lease import Lease, State

#: A loop that is held for longer is said to be blocked.
BLOCKED_SECONDS = 1.0
#: What was cancelled may take so long to clean up after itself.
CANCEL_SECONDS = 10


class LoopWatch:
    """Knows which job holds the event loop, and says so once when all others there wait for it."""

    def __init__(self, *, hand: Hand, coroutines: Coroutines, log: FilteringBoundLogger) -> None:
        self._hand = hand
        self._coroutines = coroutines
        self._log = log
        self._said = False
        self._held_since = 0.0
        self.holder: str | None = None

    def check(self) -> None:
        """Ask the loop for a sign of life, at each tick."""
        held_seconds = self._coroutines.held_seconds()
        if not held_seconds:
            self._let_go()
            return
        self._held_since = self._held_since or time.monotonic() - held_seconds
        self.holder = self._coroutines.holder()
        if held_seconds >= BLOCKED_SECONDS and not self._said:
            self._said = True
            self._say(round(held_seconds, 1))

    def keeps_waiting(self, lease: Lease) -> bool:
        """Tell whether a job waits only for another job, which holds the loop."""
        on_loop = lease.state is State.AWAITING or self._coroutines.awaits(lease.thread_id)
        return self.holder not in (None, lease.delivery.message_id) and on_loop

    def _let_go(self) -> None:
        """Take what others waited for the holder off the time of their limits."""
        if self.holder:
            for lease in self._hand.all_in(State.AWAITING, State.RUNNING):
                if self.keeps_waiting(lease):
                    self._hand.excuse(lease, since=self._held_since)
        self._said, self._held_since, self.holder = False, 0.0, None

    def _say(self, held_seconds: float) -> None:
        on_loop = self._hand.all_in(State.AWAITING, State.RUNNING)
        lease = next((each for each in on_loop if each.delivery.message_id == self.holder), None)
        self._log.warning(
            "loop.blocked",
            **(lease.delivery.ids() if lease else {"message_id": self.holder}),
            held_seconds=held_seconds,
            stack=stack_of_thread(self._coroutines.thread_id),
            effect="every other `async def` job waits: await what this one waits for, or make it a plain def",
        )


class JobLimit:
    """Cancels an `async def` job that outlives its limit; for a thread that hangs only the end of the process helps."""

    def __init__(
        self,
        *,
        hand: Hand,
        loop: LoopWatch,
        awaiting: Awaiting,
        limit_seconds: int,
        inbox: Inbox,
        log: FilteringBoundLogger,
    ) -> None:
        self._hand = hand
        self._loop = loop
        self._awaiting = awaiting
        self._limit_seconds = limit_seconds
        self._inbox = inbox
        self._log = log

    def check(self) -> None:
        """See to each job that is over its limit."""
        oldest_start = time.monotonic() - self._limit_seconds
        for lease in self._hand.all_in(State.RUNNING, State.AWAITING):
            if lease.started_at < oldest_start and not self._loop.keeps_waiting(lease):
                self._see_to(lease, is_late=lease.started_at < oldest_start - CANCEL_SECONDS)

    def _see_to(self, lease: Lease, *, is_late: bool) -> None:
        """Log its own stack, mark it for backoff, and cancel it; what cannot be cancelled ends the process."""
        is_awaiting = lease.state is State.AWAITING
        if not lease.overdue:
            lease.overdue = True
            stack = self._awaiting.stack_of(lease)
            self._log.error("job.timed_out", **lease.delivery.ids(), limit_seconds=self._limit_seconds, stack=stack)
            if is_awaiting:
                self._awaiting.cancel(lease)
        if is_late or not is_awaiting or self._loop.holder == lease.delivery.message_id:
            self._inbox.ask(ExitCode.JOB_TIMEOUT)


class DescriptorWatch:
    """Ends the process when a job has closed descriptors that are not its own, as libraries that make daemons do.

    Their numbers are given out anew, and what is meant for one connection would go into another.
    """

    def __init__(self, *, descriptor: int, inbox: Inbox, log: FilteringBoundLogger) -> None:
        self._descriptor = descriptor
        self._file = os.fstat(descriptor)
        self._inbox = inbox
        self._log = log

    def check(self) -> None:
        """Look whether one of ours is still the same file."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self._file):
                return
        self._log.critical("descriptors.closed", effect="a job has closed ours: the process ends and starts afresh")
        self._inbox.ask(ExitCode.THREAD_DIED)


class MemoryLimit:
    """Recycles the process at a resident size: for leaks in the app's code that nobody finds today."""

    def __init__(self, *, limit_mb: int, inbox: Inbox, log: FilteringBoundLogger) -> None:
        self._limit_mb = limit_mb
        self._said = False
        self._inbox = inbox
        self._log = log

    def check(self) -> None:
        """Ask for the stop, once, when over the limit."""
        try:
            used = resident_mb()
        except OSError:  # no descriptor left: the next tick asks again
            return
        if used > self._limit_mb and not self._said:
            self._said = True
            self._log.warning("memory.limit", resident_mb=round(used), limit_mb=self._limit_mb)
            self._inbox.ask(ExitCode.RECYCLED)


def resident_mb() -> float:
    """Measure the memory the process holds now, in MiB (Linux: statm counts pages)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_048_576
