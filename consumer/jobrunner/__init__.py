"""Jobs and crons for a web app on AWS: what an app imports. Runs on the app's threads.

Public are these names, and all else may change. Each is imported when it is first used: the command line's
help and the jobs that only ask for `current_job()` need no AWS library.
"""

#: Type checkers know this name; `typing` itself would take longer to import than all here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobrunner.current import CurrentJob, current_job
    from jobrunner.errors import (
        AccessDenied,
        BadParams,
        EnqueueError,
        JobrunnerError,
        MalformedMessage,
        NoCurrentJob,
        QueueError,
        QueueNotFound,
        RequestRefused,
        SettingsError,
        UnknownMethod,
    )
    from jobrunner.sending.asynchronous import aenqueue, aenqueue_many
    from jobrunner.sending.calls import call
    from jobrunner.sending.later import cancel
    from jobrunner.sending.producer import enqueue, enqueue_many

__all__ = [
    "AccessDenied",
    "BadParams",
    "CurrentJob",
    "EnqueueError",
    "JobrunnerError",
    "MalformedMessage",
    "NoCurrentJob",
    "QueueError",
    "QueueNotFound",
    "RequestRefused",
    "SettingsError",
    "UnknownMethod",
    "aenqueue",
    "aenqueue_many",
    "call",
    "cancel",
    "current_job",
    "enqueue",
    "enqueue_many",
]
#: Where those that are no errors live.
ROOMS = {
    "CurrentJob": "current",
    "current_job": "current",
    "aenqueue": "sending.asynchronous",
    "aenqueue_many": "sending.asynchronous",
    "call": "sending.calls",
    "cancel": "sending.later",
    "enqueue": "sending.producer",
    "enqueue_many": "sending.producer",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'jobrunner' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"jobrunner.{ROOMS.get(name, 'errors')}"), name)
    return value
