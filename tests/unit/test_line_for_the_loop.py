"""The line of `async def` jobs, on a real loop; what settles them is stood in for."""

import contextvars
import threading
import types

import pytest
from servers import wait_for

from jobrunner.app.coroutines import Coroutines
from jobrunner.message import Delivery
from jobrunner.outcome import DONE, Outcome
from jobrunner.worker.awaiting import Awaiting
from jobrunner.worker.hand import Hand

FINE = types.SimpleNamespace(context=contextvars.Context())
BURIED = Outcome("failed", 60.0, reason="given up: no other attempt is wanted")


@pytest.fixture
def house():
    class House:
        ended = DONE

        def __init__(self):
            self.hand = Hand(threads=1, async_jobs=2, visibility_seconds=30, attempts_max=5)
            self.coroutines = Coroutines()
            threading.Thread(target=self.coroutines.loop, daemon=True).start()
            self.died, self.settled, self.in_settle = [], [], threading.Event()
            self.awaiting = Awaiting(
                execution=self,
                coroutines=self.coroutines,
                hand=self.hand,
                settler=self,
                most=1,
                died=lambda *what: self.died.append(what),
            )

        async def run_on_loop(self, _prepared, *, is_overdue):
            assert not is_overdue()
            return self.ended

        def settle(self, lease, _outcome):
            self.settled.append(lease)

        def submit(self, *names):
            deliveries = [
                Delivery(message_id=name, receipt_handle=name, body="", attempt=1, sent_at=0) for name in names
            ]
            leases = self.hand.received(deliveries, asked=0, held_since=0, receive_seconds=0)
            for lease in leases:
                self.awaiting.submit(lease, FINE)
            return leases

    return House()


def test_they_run_one_after_another_where_only_one_may(house):
    leases = house.submit("a", "b", "c")
    wait_for(lambda: house.settled == leases)


@pytest.mark.parametrize("ended", [DONE, BURIED], ids=["on the loop", "in a thread"])
def test_an_error_of_ours_is_said_and_the_line_goes_on(house, ended):
    def broken(_lease, _outcome):
        house.settle = type(house).settle.__get__(house)
        raise ZeroDivisionError

    house.ended, house.settle = ended, broken
    _, second = house.submit("a", "b")
    wait_for(lambda: house.settled == [second])
    ((thread, error),) = house.died
    assert (thread, type(error)) == ("coroutines", ZeroDivisionError)


def test_a_cancel_that_comes_while_it_is_settled_is_not_an_error_of_ours(house):
    go = threading.Event()

    def slow(lease, _outcome):
        house.in_settle.set()
        assert go.wait(60)
        house.settled.append(lease)

    house.ended, house.settle = BURIED, slow
    (lease,) = house.submit("a")
    assert house.in_settle.wait(60)
    house.awaiting.cancel(lease)
    house.submit("b")
    wait_for(lambda: not house.awaiting._tasks or lease not in house.awaiting._tasks)
    go.set()
    wait_for(lambda: len(house.settled) == 2)
    assert house.died == []
