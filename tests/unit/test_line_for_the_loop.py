"""The line of `async def` jobs, on a real loop; what settles them is stood in for."""

import asyncio
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
            self.died, self.settled, self.outcomes, self.in_settle = [], [], [], threading.Event()
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

        def settle(self, lease, outcome):
            self.settled.append(lease)
            self.outcomes.append((lease, outcome))

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


def test_one_that_another_job_cancels_before_its_first_step_is_handed_back_and_the_line_goes_on(house):
    async def cancels_all(_prepared, *, is_overdue):
        if not house.settled:
            house.submit("c")
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            house.run_on_loop = type(house).run_on_loop.__get__(house)
        return DONE

    house.awaiting._most, house.run_on_loop = 2, cancels_all
    gate = threading.Event()
    house.coroutines.call_soon(gate.wait)  # so that both start in one turn of the loop
    house.submit("a", "b")
    gate.set()
    wait_for(lambda: len(house.settled) == 3)
    assert [(lease.delivery.message_id, outcome.name) for lease, outcome in house.outcomes] == [
        ("a", "done"),
        ("b", "handed_back"),
        ("c", "done"),
    ]
    assert not house.awaiting._tasks


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
