"""What ends the process: each limit asked as the keeper asks it."""

from jobrunner.errors import ExitCode
from jobrunner.worker.limits import MemoryLimit, PollWatch, resident_mb


class Receiving:
    def __init__(self, seconds_out):
        self._seconds_out = seconds_out

    def seconds_out(self):
        return self._seconds_out

    def stuck_seconds(self):
        return 90.0


def test_a_receive_out_for_three_times_its_longest_is_stuck(log, events):
    asked = []
    PollWatch(receiver=Receiving(89.0), stop=asked.append, log=log).check()
    PollWatch(receiver=Receiving(0.0), stop=asked.append, log=log).check()
    assert asked == []
    PollWatch(receiver=Receiving(91.0), stop=asked.append, log=log).check()
    assert asked == [ExitCode.POLL_STUCK]
    assert events.one("receive.stuck")["seconds"] == 91


def test_memory_is_measured_now_and_compared(log):
    asked = []
    assert 10 < resident_mb() < 2000
    MemoryLimit(limit_mb=1_000_000, stop=asked.append, log=log).check()
    MemoryLimit(limit_mb=1, stop=asked.append, log=log).check()
    assert asked == [ExitCode.RECYCLED]
