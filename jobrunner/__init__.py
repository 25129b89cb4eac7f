"""The public face of jobrunner, and the whole of it: what a web app imports; runs on the app's threads."""

from consumer.current import CurrentJob, current_job
from consumer.errors import (
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
from consumer.producer import enqueue, enqueue_many

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
    "current_job",
    "enqueue",
    "enqueue_many",
]
