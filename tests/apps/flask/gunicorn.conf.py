from jobrunner import enqueue


def when_ready(server):
    """Send from the master before it forks: there is a client to be shared by mistake."""
    enqueue("more.ready")
