"""`async def` jobs: each a task on the event loop, which holds no thread; thread "coroutines", unless said."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from jobrunner.app.coroutines import Coroutines, stack_of_coroutine
from jobrunner.outcome import handed_back
from jobrunner.worker.execution import Execution, Prepared
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease, State
from jobrunner.worker.settler import Settler


class Awaiting:
    """Starts up to `most` jobs on the loop; the others wait in line, from where the keeper hands them back."""

    def __init__(
        self,
        *,
        execution: Execution,
        coroutines: Coroutines,
        hand: Hand,
        settler: Settler,
        most: int,
        died: Callable[[str, BaseException], None],
    ) -> None:
        self._execution = execution
        self._coroutines = coroutines
        self._hand = hand
        self._settler = settler
        self._most = most
        self._died = died
        self._tasks: dict[Lease, asyncio.Task[None]] = {}
        self._line: deque[tuple[Lease, Prepared]] = deque()

    def submit(self, lease: Lease, prepared: Prepared) -> None:
        """Put a job in line for the loop; any thread, never waits."""
        self._coroutines.call_soon(self._take, lease, prepared)

    def cancel(self, lease: Lease) -> None:
        """Cancel a job that is over its limit, and no other; any thread. A loop that is blocked does it late."""
        if task := self._tasks.get(lease):
            self._coroutines.call_soon(task.cancel)

    def stack_of(self, lease: Lease) -> str:
        """Show where a running job stands, also one that has a thread; any thread."""
        task = self._tasks.get(lease)
        computes = self._coroutines.holder() == lease.delivery.message_id  # then its thread's stack says more
        stack = stack_of_coroutine(task.get_coro()) if task and not computes else ""
        return stack or self._coroutines.stack_of(lease.thread_id)

    def _take(self, lease: Lease, prepared: Prepared) -> None:
        self._line.append((lease, prepared))
        self._start_next()

    def _start_next(self) -> None:
        while self._line and len(self._tasks) < self._most:
            lease, prepared = self._line.popleft()
            # What waited for too long, or for a process that stops, was handed back meanwhile.
            if self._hand.start(lease, State.AWAITING):
                task = asyncio.create_task(self._run(lease, prepared), context=prepared.context)
                self._tasks[lease] = task
                task.add_done_callback(partial(self._ended, lease))

    async def _run(self, lease: Lease, prepared: Prepared) -> None:
        try:
            outcome = await self._execution.run_on_loop(prepared, is_overdue=lambda: lease.overdue)
            if outcome.reason:  # it makes a request
                await asyncio.to_thread(self._settler.settle, lease, outcome)
            else:
                self._settler.settle(lease, outcome)
        except asyncio.CancelledError:
            return  # its limit was over while it was settled: the thread goes on with that
        except BaseException as error:  # a task keeps its error to itself
            self._died("coroutines", error)

    def _ended(self, lease: Lease, task: asyncio.Task[None]) -> None:
        del self._tasks[lease]
        try:
            if task.cancelled():  # by another job, before its first step: nothing of it has run
                self._settler.settle(lease, handed_back(lease.delivery.attempt))
            self._start_next()
        except BaseException as error:
            self._died("coroutines", error)
