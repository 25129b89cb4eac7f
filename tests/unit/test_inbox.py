"""What the main thread waits on, with a real signal that another thread is given."""

import signal
import threading

from jobrunner.errors import ExitCode
from jobrunner.worker.inbox import Inbox


def test_a_signal_that_the_kernel_gives_to_another_thread_is_answered():
    """As it does while jobs start threads and programs: Python's handler runs when the main thread does."""
    inbox = Inbox()
    before = signal.signal(signal.SIGUSR2, lambda *_: inbox.ask(ExitCode.STOPPED))
    waiting, done = threading.Event(), threading.Event()

    def take_it():
        waiting.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        done.wait()

    thread = threading.Thread(target=take_it)
    thread.start()
    try:
        threading.Timer(0.1, waiting.set).start()
        assert inbox.next() is ExitCode.STOPPED
        assert inbox.is_stopping()
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR2, before)
