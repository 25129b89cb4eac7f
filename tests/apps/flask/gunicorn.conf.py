"""Sends from the master before it forks: there is a client to be shared by mistake."""

from jobrunner import enqueue


def when_ready(server):
    enqueue("more.ready")
