"""What signals do to us and to children of jobs, and the end of the process; main thread."""

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from jobrunner.errors import ExitCode
from jobrunner.worker.inbox import Inbox

OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def end_at_once() -> None:
    """End at SIGTERM and SIGINT while nothing is in hand, also as process 1, which no default action ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(ExitCode.STOPPED))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # nothing to show yet, and no reason to die


def heed_none() -> None:
    """Go on at any signal of ours; by handlers, since programs that a job starts would inherit that we ignore it."""
    for number in OURS:
        signal.signal(number, lambda *_: None)


def heed(inbox: Inbox) -> None:
    """Stop at SIGTERM and SIGINT, at once at a second one; show all stacks at SIGUSR1."""
    signalled = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        if signalled:
            os._exit(ExitCode.SECOND_SIGNAL)
        signalled = True
        inbox.ask(ExitCode.STOPPED)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, lambda *_: inbox.ask(None))


def stay_ours(descriptor: int) -> None:
    """Give children that jobs fork the default signals, and not this descriptor of ours.

    A handler of ours would swallow the SIGTERM that is to end them.
    """

    def forget() -> None:
        for number in OURS:
            signal.signal(number, signal.SIG_DFL)
        with suppress(OSError):
            os.close(descriptor)

    os.register_at_fork(after_in_child=forget)


def end(code: int) -> NoReturn:
    """End the process, and with it the children of its jobs where the process group is ours, as under supervisord.

    A shell's pipeline or a test runner would be hit as well.
    """
    if os.getpgrp() == os.getpid() and not os.isatty(0):
        with suppress(ValueError):  # another thread than the main one, where nothing of ours heeds it
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
    os._exit(code)
