"""What jobrunner and the bare loops run."""

import time


def noop():
    pass


def nap(seconds):
    time.sleep(seconds)
