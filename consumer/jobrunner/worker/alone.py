"""The last attempt of a message runs in a process of its own: its parent's side, on the waiting worker thread.

A job that kills its process takes the jobs beside it down, they come back together, and together they
would end in the dead letters. So on its last attempt every delivery is alone: the culprit dies alone,
the innocent come through. It needs no memory of crashes, and so works across machines.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from threading import BoundedSemaphore
from typing import IO, Any

from structlog.typing import FilteringBoundLogger

from jobrunner.outcome import Outcome, failed
from jobrunner.worker.execution import Execution
from jobrunner.worker.hand import Hand
from jobrunner.worker.last_attempt import DELETED, Order
from jobrunner.worker.lease import Lease, State
from jobrunner.worker.settler import Settler, say_given_up

#: Each is a process with the whole app. The others wait their turn, and their leases are renewed meanwhile.
ALONE_MAX = 2
#: Beyond the job's own limit, for starting and stopping on a busy machine.
SPARE_SECONDS = 120
LINUX = sys.platform == "linux"
#: A report is two short lines.
REPORT_BYTES_MAX = 4_096
#: -P: the working directory may hold files of our names.
CHILD = (sys.executable, "-P", "-c", "from jobrunner.worker.last_attempt import main; main()")


class Alone:
    """Starts a process for one delivery, waits for it, and settles what it has not settled itself.

    `output` is a descriptor of ours for its lines: a job may have closed stdout.
    """

    def __init__(
        self,
        *,
        order: Order,
        output: int,
        execution: Execution,
        hand: Hand,
        settler: Settler,
        log: FilteringBoundLogger,
    ) -> None:
        self._order = order
        self._output = output
        self._execution = execution
        self._hand = hand
        self._settler = settler
        self._log = log
        self._turns = BoundedSemaphore(ALONE_MAX)

    def run(self, lease: Lease) -> None:
        """Wait for its turn, run it and settle it. What cannot be started is run here: it has no other attempt."""
        with self._turns:
            if not self._hand.start(lease, State.ALONE):
                return
            try:
                report, ended_with = self._run_child(lease)
            except OSError as error:
                report, ended_with = {}, str(error)
            if not report.get("started"):
                self._run_here(lease, ended_with)
            elif report.get("deleted"):
                self._hand.confirm([lease])
            else:
                self._settler.settle(lease, self._outcome(lease, report, ended_with))

    def _run_here(self, lease: Lease, reason: str) -> None:
        delivery = lease.delivery
        self._log.warning(
            "alone.not_started",
            **delivery.ids(),
            error=reason,
            effect="the last attempt runs beside the others",
        )
        self._hand.start(lease, after=State.ALONE)
        self._settler.settle(lease, self._execution.run(self._execution.prepare(delivery)))

    def _outcome(self, lease: Lease, report: dict[str, Any], ended_with: str) -> Outcome:
        match report:
            case {"ended": str(name), "release_seconds": int() | None as seconds}:
                return Outcome(name, seconds)
        delivery = lease.delivery
        outcome = failed("died", delivery.attempt, self._order.attempts_max)
        self._log.error(
            "job.failed",
            **delivery.ids(),
            attempts_max=self._order.attempts_max,
            retry_seconds=outcome.retry_seconds,
            error=f"its own process ended with {ended_with}: on its last attempt a job runs alone",
        )
        say_given_up(self._log, delivery, outcome.name)
        return outcome

    def _run_child(self, lease: Lease) -> tuple[dict[str, Any], str]:
        """Give what the child reported and how it ended; raises OSError if there can be none."""
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as report:
            # Its order in a file and not a pipe: the child has all of it, whenever we end.
            with os.fdopen(writer, "wb"), _file_of(self._order.of(lease, report_to=writer).pack()) as file:
                child = subprocess.Popen(
                    CHILD,
                    stdin=file,
                    stdout=self._output,
                    cwd=self._order.settings.app_dir,
                    pass_fds=[writer],
                    start_new_session=True,  # a signal to our group is not meant for it
                )
            self._wait(child)
            os.set_blocking(reader, False)  # what the job forked may still hold its other end
            told = _parsed(report.read(REPORT_BYTES_MAX) or b"")
            return {**told, "deleted": child.returncode == DELETED}, _named(child.returncode)

    def _wait(self, child: subprocess.Popen[bytes]) -> None:
        limit = self._order.settings.job_timeout_seconds
        settling = self._order.visibility_seconds
        try:
            child.wait(timeout=limit + settling + SPARE_SECONDS if limit else None)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _file_of(data: bytes) -> IO[bytes]:
    # In memory where there is such a thing: the file system may be read-only.
    file: IO[bytes] = os.fdopen(os.memfd_create("order"), "w+b") if LINUX else tempfile.TemporaryFile()  # noqa: SIM115
    file.write(data)
    file.seek(0)
    return file


def _parsed(report: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in report.splitlines():
        with suppress(ValueError, TypeError):  # a job may write anything to any descriptor
            found |= json.loads(line)
    return found


def _named(code: int) -> str:
    with suppress(ValueError):  # not every signal has a name
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"signal {-code}"
