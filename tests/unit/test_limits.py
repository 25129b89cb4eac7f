"""What ends the process: each limit asked as the keeper asks it."""

from queue import Empty

import pytest

from jobrunner.errors import ExitCode
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.limits import MemoryLimit, PollWatch, resident_mb


class Receiving:
    def __init__(self, seconds_out):
        self._seconds_out = seconds_out

    def seconds_out(self):
        return self._seconds_out

    def stuck_seconds(self):
        return 90.0


def test_a_receive_out_for_three_times_its_longest_is_stuck(log, events):
    inbox = Inbox()
    PollWatch(receiver=Receiving(89.0), inbox=inbox, log=log).check()
    PollWatch(receiver=Receiving(0.0), inbox=inbox, log=log).check()
    with pytest.raises(Empty):
        inbox.next_within(0.01)
    PollWatch(receiver=Receiving(91.0), inbox=inbox, log=log).check()
    assert inbox.next_within(0.01) is ExitCode.POLL_STUCK
    assert events.one("receive.stuck")["out_seconds"] == 91


def test_memory_is_measured_now_and_compared_and_said_once(log, events):
    inbox = Inbox()
    assert 10 < resident_mb() < 2000
    MemoryLimit(limit_mb=1_000_000, inbox=inbox, log=log).check()
    full = MemoryLimit(limit_mb=1, inbox=inbox, log=log)
    full.check()
    full.check()
    assert inbox.next_within(0.01) is ExitCode.RECYCLED
    assert events.one("memory.limit")["limit_mb"] == 1
