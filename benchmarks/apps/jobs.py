"""What jobrunner and the bare loops run."""

import time
from pathlib import Path


def noop():
    pass


def stamp(path, sent):
    waited = time.time() - sent
    with Path(path).open("a") as stamps:
        stamps.write(f"{waited}\n")


def nap(seconds):
    time.sleep(seconds)
