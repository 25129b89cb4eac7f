"""Every limit is checked at birth, and says the value and the cure."""

from pathlib import Path

import pytest

from jobrunner.errors import SettingsError
from jobrunner.settings import Settings

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"


def test_the_defaults_are_good(tmp_path):
    assert Settings(queue_url=URL, app_dir=tmp_path).threads == 8


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"queue_url": ""}, "no queue: give --queue-url or set JOBRUNNER_QUEUE_URL"),
        ({"queue_url": "jobs"}, "'jobs' is not a queue URL such as https"),
        ({"queue_url": "https://sqs.eu-west-1.amazonaws.com/"}, "not a queue URL"),
        ({"queue_url": URL + ".fifo"}, "FIFO queue.*Use a standard queue"),
        ({"app_dir": Path("/no/such/folder")}, "--app-dir /no/such/folder is not a directory"),
        ({"around": "web.app"}, "--around 'web.app' is not MODULE:CALLABLE, such as"),
        ({"around": "web.app:"}, "not MODULE:CALLABLE"),
        ({"threads": 0}, "--threads is 0, outside 1 to 1000"),
        ({"job_timeout_seconds": -1}, "--job-timeout is -1"),
        ({"wait_seconds": 21}, "--wait-seconds is 21, outside 1 to 20"),
        ({"wait_seconds": 0}, "--wait-seconds is 0, outside 1 to 20"),
        ({"visibility_timeout_seconds": 9}, "--visibility-timeout is 9 s, outside 10 to 43200"),
        ({"max_memory_mb": 0}, "--max-memory-mb is 0"),
        ({"status_file": Path("/no/such/folder/x")}, "folder does not exist"),
    ],
)
def test_each_wrong_value_is_named_with_its_cure(wrong, says):
    with pytest.raises(SettingsError, match=says):
        Settings(**{"queue_url": URL, "app_dir": Path(), **wrong})
