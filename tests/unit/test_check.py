"""What `check` finds wrong with a queue's attributes, and what it says mends it."""

import json
import time
from email.utils import formatdate

import pytest
from botocore.exceptions import ClientError

from consumer.operate import check, rules
from consumer.operate.queues import OperatedQueue

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"
ARN = "arn:aws:sqs:eu-west-1:123456789012:jobs"
GOOD = {
    "QueueArn": ARN,
    "VisibilityTimeout": "60",
    "MessageRetentionPeriod": "345600",
    "MaximumMessageSize": "1048576",
    "DelaySeconds": "0",
    "SqsManagedSseEnabled": "true",
    "ApproximateNumberOfMessagesNotVisible": "8",
    "RedrivePolicy": json.dumps({"deadLetterTargetArn": f"{ARN}-dead", "maxReceiveCount": 10}),
}
DEAD = {"MessageRetentionPeriod": "1209600", "ApproximateNumberOfMessages": "0"}


def attempts(count):
    return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": f"{ARN}-dead", "maxReceiveCount": count})}


def policy(principal, *, sid="Open", action="sqs:SendMessage", **more):
    statement = {"Effect": "Allow", "Principal": principal, "Action": action, "Resource": ARN, **more}
    return {"Policy": json.dumps({"Statement": [{**({"Sid": sid} if sid else {}), **statement}]})}


def of_queue(values, *, job_timeout_seconds=3600):
    seconds = int(values["VisibilityTimeout"])
    return list(
        rules.of_queue(values, queue_url=URL, visibility_seconds=seconds, job_timeout_seconds=job_timeout_seconds)
    )


def bad(findings):
    return [finding for finding in findings if finding.level != "ok"]


def test_a_good_queue_has_nothing_wrong():
    assert bad(of_queue(GOOD)) == []
    assert bad(rules.of_dead_letters(GOOD, DEAD, dead_url=f"{URL}-dead", queue_url=URL)) == []


@pytest.mark.parametrize(
    ("values", "level", "subject", "cure"),
    [
        ({"VisibilityTimeout": "5"}, "error", "visibility timeout", '{"VisibilityTimeout": "60"}'),
        ({"VisibilityTimeout": "20"}, "warn", "visibility timeout", '{"VisibilityTimeout": "60"}'),
        ({"VisibilityTimeout": "3000"}, "warn", "visibility timeout", '{"VisibilityTimeout": "60"}'),
        ({"RedrivePolicy": ""}, "error", "dead-letter queue", "create-queue --queue-name jobs-dead"),
        (attempts(1), "error", "attempts", '\\"maxReceiveCount\\": 10'),
        (attempts(4), "warn", "attempts", '\\"maxReceiveCount\\": 10'),
        ({"DelaySeconds": "30"}, "warn", "delay", '{"DelaySeconds": "0"}'),
        ({"MaximumMessageSize": "262144"}, "warn", "message size", '{"MaximumMessageSize": "1048576"}'),
        ({"MessageRetentionPeriod": "3600"}, "warn", "retention", '{"MessageRetentionPeriod": "345600"}'),
        ({"ApproximateNumberOfMessagesNotVisible": "70000"}, "warn", "in flight", "who receives and never deletes"),
        ({"ApproximateNumberOfMessagesNotVisible": "119000"}, "error", "in flight", "who receives and never deletes"),
        ({"SqsManagedSseEnabled": "false"}, "warn", "encryption", '{"SqsManagedSseEnabled": "true"}'),
        (policy("*"), "error", "who may send", f"remove-permission --queue-url {URL} --label Open"),
        (policy({"AWS": "*"}, action="sqs:*"), "error", "who may send", "--label Open"),
        (policy("*", sid=None), "error", "who may send", '--attributes \'{"Policy": ""}\''),
        (policy({"AWS": "arn:aws:iam::999999999999:root"}), "warn", "who may send", "--label Open"),
        (policy({"AWS": ["999999999999"]}), "warn", "who may send", "--label Open"),
        (policy({"Service": "events.amazonaws.com"}), "warn", "who may send", "--label Open"),
    ],
)
def test_what_is_wrong_is_named_with_its_reason_and_its_cure(values, level, subject, cure):
    (found,) = bad(of_queue({**GOOD, **values}))
    assert (found.level, found.subject) == (level, subject)
    assert found.why
    assert cure in found.cure


@pytest.mark.parametrize(
    "values",
    [
        policy("*", Condition={"ArnEquals": {"aws:SourceArn": "arn:aws:events:eu-west-1:123456789012:rule/x"}}),
        policy({"AWS": "arn:aws:iam::123456789012:role/web"}),
        policy("*", action="sqs:GetQueueAttributes"),
        {"KmsMasterKeyId": "alias/jobs", "SqsManagedSseEnabled": "false"},
    ],
)
def test_what_is_fine_is_left_alone(values):
    assert bad(of_queue({**GOOD, **values})) == []


@pytest.mark.parametrize(("seconds", "says"), [(0, "none"), (30, "shorter than the visibility timeout")])
def test_a_job_timeout_that_does_not_fit_is_named(seconds, says):
    (found,) = bad(of_queue(GOOD, job_timeout_seconds=seconds))
    assert (found.subject, says in found.value) == ("job timeout", True)
    assert "jobrunner consume --" in found.cure


@pytest.mark.parametrize(
    ("dead", "subject", "level"),
    [
        ({"MessageRetentionPeriod": "345600"}, "dead-letter retention", "error"),
        ({"FifoQueue": "true"}, "dead-letter type", "error"),
        ({"ApproximateNumberOfMessages": "3"}, "dead letters", "warn"),
    ],
)
def test_what_is_wrong_with_the_dead_letters_is_named(dead, subject, level):
    found = bad(rules.of_dead_letters(GOOD, {**DEAD, **dead}, dead_url=f"{URL}-dead", queue_url=URL))
    assert [(finding.subject, finding.level, bool(finding.cure)) for finding in found] == [(subject, level, True)]


def test_a_visibility_timeout_of_the_flag_is_mended_at_the_flag():
    (found,) = bad(rules.of_queue(GOOD, queue_url=URL, visibility_seconds=5, job_timeout_seconds=3600))
    assert found.cure == "jobrunner consume --visibility-timeout 60"


@pytest.mark.parametrize(("offset_seconds", "level"), [(-1200, "error"), (60, "warn"), (0, "ok")])
def test_a_clock_that_is_off_is_named_also_where_sqs_calls_it_a_wrong_signature(monkeypatch, offset_seconds, level):
    answer = {
        "Attributes": GOOD,
        "ResponseMetadata": {"HTTPHeaders": {"date": formatdate(time.time() - offset_seconds)}, "HTTPStatusCode": 403},
        "Error": {"Code": "SignatureDoesNotMatch", "Message": "Signature expired"},
    }

    class Client:
        def __getattr__(self, name):
            def answer_or_refuse(**_):
                if level == "error":
                    raise ClientError(answer, name)
                return answer

            return answer_or_refuse

    class NoEndpoint:
        def other_client(self, *_, **__):
            return None

    queue = OperatedQueue(url=URL, endpoint=NoEndpoint(), client=Client())
    monkeypatch.setattr(check, "operated", lambda _url: queue)
    options = {"queue_url": URL, "visibility_timeout_seconds": None, "job_timeout_seconds": 3600}
    (found,) = [finding for finding in check._queue(options) if finding.subject == "clock"]
    assert (found.level, bool(found.cure)) == (level, level != "ok")


@pytest.mark.parametrize(("seconds", "level"), [(None, "ok"), (60.0, "ok"), (7200.0, "warn")])
def test_an_old_message_is_a_warning(seconds, level):
    assert rules.of_oldest(seconds).level == level
