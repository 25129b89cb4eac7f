"""What ends the process: each limit asked as the keeper asks it."""

from jobrunner.errors import ExitCode
from jobrunner.worker.inbox import Inbox
from jobrunner.worker.limits import MemoryLimit, resident_mb


def test_memory_is_measured_now_and_compared_and_said_once(log, events):
    inbox = Inbox()
    assert 10 < resident_mb() < 2000
    MemoryLimit(limit_mb=1_000_000, inbox=inbox, log=log).check()
    full = MemoryLimit(limit_mb=1, inbox=inbox, log=log)
    full.check()
    full.check()
    assert inbox.next_within(0.01) is ExitCode.RECYCLED
    assert events.one("memory.limit")["limit_mb"] == 1
