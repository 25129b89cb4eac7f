"""A job that fails, to see what becomes of it."""

from jobrunner import current_job
from jobs import _records


def stumble(key, times=2):
    """Fail the first few times: SQS hands the message out again, a little later each time."""
    with _records.progress(key):
        attempt = current_job().attempt
        if attempt <= times:
            raise RuntimeError(f"stumbled on attempt {attempt}, as asked")
