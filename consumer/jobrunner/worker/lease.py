"""One delivery in hand and how long it is ours; pure arithmetic, any thread."""

from dataclasses import dataclass
from enum import IntEnum

from jobrunner.message import Delivery
from jobrunner.settings import VISIBILITY_SECONDS_MAX

#: A lease is renewed when a third of it is gone: two more tries fit before it ends.
RENEW_AT = 1 / 3
#: AWS counts the 12 hours from its own receipt of the message and refuses the last seconds.
CAP_MARGIN_SECONDS = 10


class State(IntEnum):
    """How far a delivery has come; numbers, since they are looked up for every job."""

    WAITING = 0
    RUNNING = 1
    ALONE = 2
    AWAITING = 3
    DONE = 4
    RELEASING = 5
    GONE = 6


@dataclass(slots=True, eq=False)
class Lease:
    """One delivery in hand. Times are monotonic.

    `Hand` owns what changes, but for three that have a writer each: `method` (pool), `overdue` (limits), `told`
    (settler).
    """

    delivery: Delivery
    received_at: float
    held_since: float
    visibility_seconds: float
    state: State = State.WAITING
    started_at: float = 0.0
    thread_id: int = 0
    method: str = ""
    renewing: bool = False
    lost: bool = False
    overdue: bool = False
    told: bool = False

    def is_due(self, now: float) -> bool:
        """Tell whether to renew it now."""
        return (
            self.held_since <= now - self.visibility_seconds * RENEW_AT
            and not (self.lost or self.renewing)
            and self.renewal_seconds(now) > 0
        )

    def renewal_seconds(self, now: float) -> int:
        """Say for how long it may be renewed: SQS ends every lease 12 hours after the receive."""
        return int(min(self.visibility_seconds, self.seconds_left(now)))

    def seconds_left(self, now: float) -> int:
        """Say for how long it may be hidden at all."""
        return int(VISIBILITY_SECONDS_MAX - CAP_MARGIN_SECONDS - (now - self.received_at))

    def ends_at(self) -> float:
        """Say until when the message is surely hidden from others."""
        return self.held_since + self.visibility_seconds
