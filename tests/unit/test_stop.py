"""The way out: its order, without a process that ends."""

from queue import SimpleQueue

import pytest

from jobrunner.errors import ExitCode
from jobrunner.message import Delivery
from jobrunner.worker import stop
from jobrunner.worker.lease import Leases, State
from jobrunner.worker.stop import Stop, WayOut


class Ended(BaseException):
    """Stands for the end of the process."""


class Everything:
    """Stands for the rooms that the way out tells what to do; notes what it was told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        def note(*_words, **_named):
            self.told.append(name)
            return False

        return note


class Alone:
    """Ends its job when it is told to stop, or when somebody has waited for it."""

    def __init__(self, leases, lease):
        self.stopped_while = []
        self._leases = leases
        self._lease = lease

    def stop(self):
        self.stopped_while.append(self._lease.state)


@pytest.fixture
def way_out(monkeypatch, log, metrics):
    """Give a way out with one last attempt that runs in a child, and that child."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(stop.os, "_exit", end)
    monkeypatch.setattr(stop.os, "getpgrp", lambda: -1)
    leases = Leases(visibility_seconds=30)
    delivery = Delivery(message_id="m", receipt_handle="h", body="{}", attempt=10, sent_at=0.0)
    (lease,) = leases.admit([delivery], leases.now())
    leases.start(lease)
    alone, rooms, inbox = Alone(leases, lease), Everything(), SimpleQueue()
    way = WayOut(
        inbox=inbox,
        receiver=rooms,
        leases=leases,
        settler=rooms,
        alone=alone,
        stacks=rooms,
        switch=rooms,
        status=None,
        metrics=metrics,
        log=log,
    )
    return way, alone, inbox, leases, lease


def test_a_recycle_lets_the_last_attempts_in_their_own_processes_end(way_out):
    """They would become dead letters: a delivery handed back on its last attempt has no other."""
    way, alone, _, leases, lease = way_out
    leases.confirm([lease])  # it ends by itself
    with pytest.raises(Ended):
        way.take(Stop(ExitCode.RECYCLED, 60))
    assert alone.stopped_while == [State.GONE]


def test_any_other_stop_tells_them_at_once(way_out):
    way, alone, _, _, _ = way_out
    with pytest.raises(Ended):
        way.take(Stop(ExitCode.STOPPED, 0))
    assert alone.stopped_while == [State.RUNNING]


def test_sigusr1_while_stopping_still_shows_where_everything_stands(way_out):
    way, _, inbox, _, _ = way_out
    inbox.put(None)
    with pytest.raises(Ended) as ended:
        way.take(Stop(ExitCode.RECYCLED, 0.1))
    assert ended.value.args == (ExitCode.RECYCLED,)
    assert "dump" in way._stacks.told
