"""Keeps ECS from ending the task of a long job, at scale-in and at a deploy; on the reporter's thread."""

import json
import os
import urllib.request
from collections.abc import Callable
from urllib.error import HTTPError

from structlog.typing import FilteringBoundLogger

from jobrunner.errors import JobrunnerError
from jobrunner.worker.hand import Hand
from jobrunner.worker.lease import Lease, State

#: Each request protects for so long; ECS takes 1 to 2,880 minutes. No request takes the protection away, since
#: several processes share a task and none knows of the others' jobs: it ends by itself this long after the last.
PROTECTED_MINUTES = 10
RENEW_SECONDS = PROTECTED_MINUTES * 60 / 2
#: After one that failed.
RETRY_SECONDS = 15.0
#: The agent is on this machine.
ANSWER_SECONDS = 2.0


class TaskProtection:
    """Asks for protection while a job here is older than `after_seconds`."""

    def __init__(
        self,
        *,
        hand: Hand,
        after_seconds: int,
        protect: Callable[[int], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._hand = hand
        self._after_seconds = after_seconds
        self._protect = protect
        self._log = log
        self._next_at = 0.0
        self._ends_at = 0.0

    def renew(self) -> None:
        """Protect the task if there is a reason and it is time; raises JobrunnerError."""
        now = self._hand.now()
        if now < self._next_at or (job := self._long_job(now)) is None:
            return
        self._next_at = now + RETRY_SECONDS
        self._protect(PROTECTED_MINUTES)
        self._next_at = now + RENEW_SECONDS
        if now > self._ends_at:
            self._log.info("task.protected", **job.delivery.ids(), protected_minutes=PROTECTED_MINUTES)
        self._ends_at = now + PROTECTED_MINUTES * 60

    def _long_job(self, now: float) -> Lease | None:
        started_by = now - self._after_seconds
        running = self._hand.all_in(State.RUNNING, State.ALONE, State.AWAITING)
        return next((lease for lease in running if lease.started_at < started_by), None)


def ecs_agent() -> Callable[[int], None] | None:
    """Give what asks the agent of this task's ECS to protect it for some minutes; None where there is no ECS.

    Source: Amazon ECS developer guide, "Task scale-in protection endpoint".
    """
    base = os.environ.get("ECS_AGENT_URI")
    if not base:
        return None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def protect(minutes: int) -> None:
        request = urllib.request.Request(  # noqa: S310 - the agent's own address, as ECS gives it
            f"{base}/task-protection/v1/state",
            data=json.dumps({"ProtectionEnabled": True, "ExpiresInMinutes": minutes}).encode(),
            headers={"Content-Type": "application/json"},
            method="PUT",
        )
        try:
            with opener.open(request, timeout=ANSWER_SECONDS) as answer:
                text = answer.read().decode(errors="replace")
        except HTTPError as error:
            text = error.read().decode(errors="replace")
        except OSError as error:
            text = str(error)
        if '"protection"' not in text:
            cure = "the task's role needs ecs:UpdateTaskProtection and ecs:GetTaskProtection"
            raise JobrunnerError(f"ECS does not protect this task: {text[:500]} ({cure})")

    return protect
