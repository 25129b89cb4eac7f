"""What `check` finds wrong with a queue's attributes, and what it says mends it."""

import json
import re
import time
from email.utils import formatdate

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from jobrunner.errors import QueueError, SettingsError
from jobrunner.operate import check, rules
from jobrunner.operate.queues import OperatedQueue, operated

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
        (policy("*"), "error", "who may send", '{"Policy": ""}'),
        (policy({"AWS": "*"}, action="sqs:*"), "error", "who may send", '{"Policy": ""}'),
        (policy("*", sid=None), "error", "who may send", '{"Policy": ""}'),
        (policy({"AWS": "arn:aws:iam::999999999999:root"}), "warn", "who may send", '{"Policy": ""}'),
        (policy({"AWS": ["999999999999"]}), "warn", "who may send", '{"Policy": ""}'),
        (policy({"Service": "events.amazonaws.com"}), "warn", "who may send", '{"Policy": ""}'),
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


@pytest.mark.parametrize(
    ("job_seconds", "visibility", "says"),
    [(0, "60", ["none"]), (300, "600", ["300 s, shorter than the visibility timeout"]), (20, "60", [])],
)
def test_a_job_timeout_that_does_not_fit_is_named(job_seconds, visibility, says):
    found = bad(of_queue({**GOOD, "VisibilityTimeout": visibility}, job_timeout_seconds=job_seconds))
    assert [finding.value for finding in found] == says
    assert all("jobrunner consume --" in finding.cure for finding in found)


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
    date = formatdate(time.time() - offset_seconds, usegmt=True)
    answer = {
        "Attributes": GOOD,
        "ResponseMetadata": {"HTTPHeaders": {"date": date}, "HTTPStatusCode": 403},
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


def test_no_probe_asks_for_what_would_change_anything_where_it_is_accepted():
    """Nobody knows what AWS will accept in five years."""
    asked = []

    class Accepting:
        def __getattr__(self, name):
            return lambda **given: (asked.append((name, given["Entries"])), {})[1]

    queue = OperatedQueue(url=URL, endpoint=None, client=Accepting())
    assert {each.verdict for each in queue.permissions()} == {"proven", "not refused"}
    assert [name for name, _ in asked] == [
        "delete_message_batch",
        "change_message_visibility_batch",
        "send_message_batch",
    ]
    handles = {entry["ReceiptHandle"] for _, entries in asked for entry in entries}
    assert (handles, asked[-1][1]) == ({"jobrunner-check"}, []), "no message has such a handle, and none is sent"


@pytest.mark.parametrize(("seconds", "level"), [(None, "ok"), (60.0, "ok"), (7200.0, "warn")])
def test_an_old_message_is_a_warning(seconds, level):
    assert rules.of_oldest(seconds).level == level


TLS = {"Bool": {"aws:SecureTransport": "true"}}


@pytest.mark.parametrize(
    "values",
    [
        policy("*", Condition=TLS),
        policy({"AWS": "*"}, Condition={**TLS, "NumericLessThan": {"aws:MultiFactorAuthAge": "1"}}),
        {"Policy": json.dumps({"Statement": {"Effect": "Allow", "NotPrincipal": {"AWS": "1"}, "Action": "sqs:*"}})},
        {"Policy": json.dumps({"Statement": [{"Effect": "Allow", "Principal": "*", "NotAction": "sqs:DeleteQueue"}]})},
    ],
)
def test_whoever_lets_anybody_in_by_another_way_is_found_too(values):
    (found,) = bad(of_queue({**GOOD, **values}))
    assert (found.level, found.value) == ("error", "*")


@pytest.mark.parametrize(
    ("url", "begins"),
    [
        (URL, "aws --region eu-west-1 sqs "),
        ("http://127.0.0.1:9324/000000000000/jobs", "aws --region us-east-1 --endpoint-url http://127.0.0.1:9324 sqs "),
    ],
)
def test_a_cure_reaches_the_queue_that_it_is_for(url, begins):
    values = {**GOOD, "DelaySeconds": "1", "RedrivePolicy": ""}
    found = bad(rules.of_queue(values, queue_url=url, visibility_seconds=60, job_timeout_seconds=3600))
    assert all(finding.cure.startswith(begins) for finding in found)


def test_a_dead_letter_queue_that_keeps_as_long_as_it_can_leaves_the_queue_to_be_mended():
    longest = {"MessageRetentionPeriod": "1209600"}
    found = rules.of_dead_letters({**GOOD, **longest}, {**DEAD, **longest}, dead_url=f"{URL}-dead", queue_url=URL)
    (finding,) = bad(found)
    assert f"--queue-url {URL} --attributes" in finding.cure
    assert '"345600"' in finding.cure


@pytest.mark.parametrize(
    ("text", "level", "says"),
    [
        ("stopwaitsecs=2 ; quick", "warn", "stopwaitsecs=2"),
        ("stopsignal=SIGTERM ; the default", "ok", "stopwaitsecs=10"),
        ("stopsignal=HUP", "warn", "stopsignal=HUP"),
        ("autorestart=false ; no", "warn", "autorestart=false"),
        ("stopwaitsecs=10\n[include]\nfiles = more/*.conf", "ok", "stopwaitsecs=10"),
    ],
)
def test_supervisords_file_is_read_as_supervisord_reads_it(tmp_path, text, level, says):
    (tmp_path / "supervisord.conf").write_text(f"[program:jobs]\ncommand=jobrunner consume\n{text}\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.conf").write_text("[program:more]\ncommand=nice jobrunner consume\nstopwaitsecs=1\n")
    found = {finding.subject.split("[")[1]: finding for finding in check._supervisord(tmp_path)}
    assert (found["program:jobs]"].level, found["program:jobs]"].value) == (level, says)
    assert ("program:more]" in found) == ("include" in text)


def test_a_supervisord_file_that_is_none_is_said(tmp_path):
    (tmp_path / "supervisord.conf").write_text("no section\n")
    (found,) = check._supervisord(tmp_path)
    assert (found.level, "no section headers" in found.value) == ("warn", True)


@pytest.mark.parametrize("error", [ReadTimeoutError(endpoint_url="x"), ConnectionClosedError(endpoint_url="x")])
def test_an_sqs_that_hangs_up_is_an_error_of_ours(error):
    class Client:
        def get_queue_attributes(self, **_):
            raise error

    with pytest.raises(QueueError, match="SQS did not answer"):
        OperatedQueue(url=URL, endpoint=None, client=Client()).values()


@pytest.mark.parametrize(
    ("url", "profile", "says"),
    [
        ("http://[x/jobs", None, "is not a URL"),
        ("http://elastic_mq:9324/0/jobs", None, "no client for http://elastic_mq:9324/0/jobs"),
        (URL, "nope", "The config profile (nope) could not be found"),
    ],
)
def test_a_url_or_profile_that_botocore_does_not_take_is_named(monkeypatch, url, profile, says):
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(SettingsError, match=re.escape(says)):
        operated(url)


@pytest.mark.parametrize(("count", "level"), [(0, "error"), (3, "ok")])
def test_a_module_without_methods_is_an_error_with_its_cure(count, level):
    found = rules.of_methods("jobs", count)
    assert (found.level, "write public functions in jobs" in found.cure) == (level, not count)


def test_a_module_that_is_not_there_is_looked_for_by_its_cure(tmp_path):
    options = {"module": "shop.nowhere", "app_dir": tmp_path, "django": None}
    (found,) = check._app(options, None)
    assert "no module 'shop.nowhere'" in found.value
    assert found.cure.startswith("find it: find . -name 'nowhere*'")


def test_a_folder_that_cannot_be_written_is_no_place_for_a_status_file(monkeypatch, tmp_path):
    assert list(check._status_file(tmp_path / "status.json")) == []
    monkeypatch.setattr(check.os, "access", lambda folder, _: folder != tmp_path)
    (found,) = check._status_file(tmp_path / "status.json")
    assert (found.level, found.value) == ("error", f"{tmp_path} cannot be written")
    assert "another --status-file" in found.cure


def test_an_app_that_silences_its_jobs_is_told_how_not_to():
    assert rules.of_logging(is_heard=True).level == "ok"
    finding = rules.of_logging(is_heard=False)
    assert (finding.level, "dictConfig" in finding.cure) == ("warn", True)
