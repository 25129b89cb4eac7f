"""The receiver's loop: what it counts, and when."""

import pytest

from jobrunner.errors import QueueError
from jobrunner.message import Delivery
from jobrunner.queue.outage import Outage
from jobrunner.worker.demand import Demand
from jobrunner.worker.lease import Leases
from jobrunner.worker.receiver import Receiver


class Stopped(Exception):
    """Ends the loop that would never end."""


def delivery(number):
    return Delivery(message_id=f"m{number}", receipt_handle=f"h{number}", body="{}", attempt=1, sent_at=0.0)


@pytest.fixture
def loop(log, metrics):
    """Give a receiver of two deliveries, and what `in_hand` was when they were submitted."""
    demand, leases, seen = Demand(threads=8), Leases(visibility_seconds=30), []

    def submit(fresh):
        seen.append((len(fresh), demand.in_hand()))
        demand.finished(0.001)  # a worker that is faster than the receiver
        seen.append(demand.in_hand())
        raise Stopped

    receiver = Receiver(
        receive=lambda **_: [delivery(1), delivery(2)],
        wait_seconds=20,
        demand=demand,
        leases=leases,
        settler=FakeSettler(),
        submit=submit,
        on_admitted=lambda: None,
        on_empty=lambda: None,
        outage=Outage(log=log),
        metrics=metrics,
    )
    return receiver.loop, seen


class FakeSettler:
    deletes = ()

    def is_stuck(self):
        return False


def test_what_came_is_counted_before_a_worker_can_end_it(loop):
    run, seen = loop
    with pytest.raises(Stopped):
        run()
    assert seen == [(2, 2), 1]


def test_an_empty_probe_does_not_stand_for_an_empty_queue(log, metrics):
    """While SQS fails it is asked shortly, and a short poll may find nothing where there is something."""
    demand, empty, answers = Demand(threads=8), [], [QueueError("down"), [], []]
    outage = Outage(log=log, clock=iter(range(1000)).__next__)

    def receive(**_):
        if not answers:
            raise Stopped
        answer = answers.pop(0)
        if isinstance(answer, QueueError):
            raise answer
        return answer

    receiver = Receiver(
        receive=receive,
        wait_seconds=20,
        demand=demand,
        leases=Leases(visibility_seconds=30),
        settler=FakeSettler(),
        submit=list,
        on_admitted=lambda: None,
        on_empty=lambda: empty.append(len(answers)),
        outage=outage,
        metrics=metrics,
    )
    with pytest.raises(Stopped):
        receiver.loop()
    assert empty == [0], "only the long poll after the probe"
