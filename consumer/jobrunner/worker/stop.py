"""The one way out: hands back what cannot end in time, settles the rest, ends the process; main thread.

All of it is a courtesy: SIGKILL in any line loses nothing.
"""

import math
import threading
import time
from collections.abc import Callable
from queue import Empty
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import ExitCode
from jobrunner.outcome import Outcome, failed, handed_back
from jobrunner.telemetry.metrics import Metrics
from jobrunner.telemetry.spans import Spans
from jobrunner.worker import signals
from jobrunner.worker.deadman import DeadMansSwitch
from jobrunner.worker.hand import Hand
from jobrunner.worker.health import StatusFile
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.lease import Lease, State
from jobrunner.worker.receiver import Receiver
from jobrunner.worker.settler import Settler

#: How long running jobs may go on after SIGTERM, and the last requests after that: under 3 s in all.
GRACE_SECONDS, SETTLE_SECONDS = 1.5, 1.0
#: How soon a long poll of ours answers when what it waits for comes from ourselves.
ECHO_SECONDS = 0.7
#: How often the stop looks whether the last job has ended.
LOOK_SECONDS = 0.02


class WayOut:
    """Takes the worker down, in order. `recycle_seconds`: what jobs may take where nothing is wrong."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        recycle_seconds: float,
        receiver: Receiver,
        hand: Hand,
        settler: Settler,
        dump: Callable[[], None],
        switch: DeadMansSwitch,
        status: StatusFile | None,
        metrics: Metrics,
        spans: Spans | None,
        log: FilteringBoundLogger,
    ) -> None:
        self._inbox = inbox
        self._recycle_seconds = recycle_seconds
        self._receiver = receiver
        self._hand = hand
        self._settler = settler
        self._dump = dump
        self._switch = switch
        self._status = status
        self._metrics = metrics
        self._spans = spans
        self._log = log
        self._sending: list[threading.Thread] = []
        self.is_taken = False

    def take(self, code: ExitCode) -> NoReturn:
        """End the process. Jobs on their last attempt, in processes of their own, go on without it."""
        self.is_taken = True
        self._log.info("worker.stopping", reason=code.name.lower(), in_hand_count=len(self._hand))
        self._receiver.stop()
        keeps_last = code is ExitCode.RECYCLED  # nothing is wrong, and they have no elsewhere
        unstarted = self._hand.give_up_all(
            State.WAITING, where=lambda lease: not (keeps_last and self._hand.is_last_attempt(lease))
        )
        self._hand_back(unstarted)
        code = self._wait_for_jobs(code)
        unfinished = self._hand.give_up_all(State.WAITING, State.RUNNING, State.AWAITING)
        self._hand_back(unfinished)
        self._send_the_rest(echo=bool(unstarted or unfinished))
        self._log.info(
            "worker.stopped",
            code=int(code),
            handed_back_count=len(unstarted) + len(unfinished),
            undeleted_count=self._hand.count(State.DONE),
            alone_count=self._hand.count(State.ALONE),
        )
        self._switch.close()
        if self._status:
            self._status.remove()
        signals.end(code)

    def _send_the_rest(self, *, echo: bool) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        flushing = self._spans.flush() if self._spans else None
        for thread in self._sending:
            thread.join(max(0, deadline - time.monotonic()))
        self._settler.drain(deadline)
        if echo:
            self._take_echo(deadline)
        self._metrics.flush()
        if flushing:
            flushing.join(max(0, deadline - time.monotonic()))

    def _wait_for_jobs(self, code: ExitCode) -> ExitCode:
        """Let running jobs end within the grace; a later wish may shorten it. Returns the reason that counts."""
        deadline = time.monotonic() + self._grace_seconds(code)
        while time.monotonic() < deadline and self._is_busy(code):
            try:
                wish = self._inbox.next_within(LOOK_SECONDS)
            except Empty:
                continue
            if wish is None:
                self._dump()
            else:
                code, deadline = wish, min(deadline, time.monotonic() + self._grace_seconds(wish))
        return code

    def _grace_seconds(self, code: ExitCode) -> float:
        return self._recycle_seconds if code is ExitCode.RECYCLED else GRACE_SECONDS

    def _hand_back(self, leases: list[Lease]) -> None:
        """Let others have what did not end here; a last attempt would only become a dead letter: a copy goes."""
        stranded = [lease for lease in leases if self._hand.is_last_attempt(lease) and not lease.overdue]
        if stranded:  # on a thread, since SQS may hang
            thread = threading.Thread(target=self._settler.send_anew, args=(stranded,), name="sender", daemon=True)
            thread.start()
            self._sending.append(thread)
        for lease in leases:
            attempt = lease.delivery.attempt
            # Here without a last attempt in mind: its copy has others.
            outcome = failed("timed_out", attempt, None) if lease.overdue else handed_back(attempt)
            if lease not in stranded:
                self._settler.release(lease, self._out_of_our_hearing(lease, outcome))

    def _out_of_our_hearing(self, lease: Lease, outcome: Outcome) -> Outcome:
        """Hide a message that has one attempt left until no poll of ours can be given it: that would spend it."""
        if not self._hand.is_last_attempt(lease, ahead=1):
            return outcome
        return Outcome(outcome.name, max(outcome.release_seconds or 0, math.ceil(self._receiver.poll_seconds_left())))

    def _take_echo(self, deadline: float) -> None:
        """Give back again what our own last long poll caught of what we handed back: nobody else would see it."""
        echo_ends = min(deadline, time.monotonic() + ECHO_SECONDS)
        while self._receiver.is_out() and time.monotonic() < echo_ends:
            time.sleep(LOOK_SECONDS)
        self._settler.drain(deadline)

    def _is_busy(self, code: ExitCode) -> bool:
        if code is ExitCode.RECYCLED and self._hand.busy():  # nothing is wrong: last attempts may end as well
            return True
        running = [lease for lease in self._hand.all_in(State.RUNNING, State.AWAITING) if not lease.overdue]
        return bool(running) or self._receiver.may_bring_more()
