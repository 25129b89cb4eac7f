"""Where a queue lives, and what SQS's errors mean to us."""

import botocore.exceptions
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    EndpointConnectionError,
    MetadataRetrievalError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import errors
from jobrunner.message import BODY_BYTES_MAX
from jobrunner.queue import endpoint as endpoint_room
from jobrunner.queue import requests as sqs
from jobrunner.queue.endpoint import Endpoint, locate, queue_arn


def skip_what_botocore_does_not_know(url):
    if "eusc" in url and "aws-eusc" not in {each["id"] for each in endpoint_room._partitions()}:
        pytest.skip("this botocore is older than the European Sovereign Cloud")


ELSEWHERE = {"AWS_REGION": "ap-south-1", "AWS_DEFAULT_REGION": "ap-south-2"}


@pytest.mark.parametrize(
    ("url", "region", "endpoint"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/1/q", "eu-west-1", None),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1", None),
        (
            "https://sqs-fips.us-gov-west-1.amazonaws.com/1/q",
            "us-gov-west-1",
            "https://sqs-fips.us-gov-west-1.amazonaws.com",
        ),
        ("https://sqs.eu-west-1.api.aws/1/q", "eu-west-1", "https://sqs.eu-west-1.api.aws"),
        ("https://sqs.eusc-de-east-1.amazonaws.eu/1/q", "eusc-de-east-1", None),
        ("https://sqs.us-iso-east-1.c2s.ic.gov/1/q", "us-iso-east-1", None),
        ("https://eu-west-1.queue.amazonaws.com/1/q", "eu-west-1", None),
        ("https://queue.amazonaws.com/1/q", "us-east-1", None),
        (
            "https://vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com/1/q",
            "eu-west-1",
            "https://vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com",
        ),
        ("http://elasticmq:9324/000000000000/q", "ap-south-1", "http://elasticmq:9324"),
        ("http://sqs.evil.amazonaws.com.example/1/q", "ap-south-1", "http://sqs.evil.amazonaws.com.example"),
    ],
)
def test_region_and_endpoint_come_from_the_url(url, region, endpoint):
    skip_what_botocore_does_not_know(url)
    assert locate(url, ELSEWHERE) == (region, endpoint)


def test_for_other_hosts_the_environment_decides():
    environ = {"AWS_ENDPOINT_URL_SQS": "http://proxy:1", "AWS_ENDPOINT_URL": "http://other:2"}
    assert locate("http://elasticmq:9324/0/q", environ) == ("us-east-1", "http://proxy:1")


def client_error(code, status, message="text"):
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "ReceiveMessage")


@pytest.mark.parametrize(
    ("raised", "meant", "says"),
    [
        (client_error("QueueDoesNotExist", 400), errors.QueueNotFound, "sqs get-queue-url"),
        (client_error("AWS.SimpleQueueService.NonExistentQueue", 400), errors.QueueNotFound, "this account and region"),
        (client_error("AccessDeniedException", 400), errors.AccessDenied, "the role needs sqs:ReceiveMessage"),
        (client_error("ExpiredToken", 403), errors.AccessDenied, "ExpiredToken"),
        (client_error("SignatureDoesNotMatch", 403), errors.AccessDenied, "Signature"),
        (client_error("InvalidClientTokenId", 403), errors.AccessDenied, "InvalidClientTokenId"),
        (client_error("KmsAccessDenied", 400), errors.AccessDenied, "kms:Decrypt"),
        (client_error("RequestThrottled", 403), errors.QueueError, "RequestThrottled"),
        (client_error("KmsThrottled", 400), errors.QueueError, "KmsThrottled"),
        (client_error("ServiceUnavailable", 503), errors.QueueError, "ServiceUnavailable"),
        (client_error("InvalidMessageContents", 400), errors.RequestRefused, "InvalidMessageContents"),
        (NoCredentialsError(), errors.AccessDenied, "give the task or instance a role"),
        (CredentialRetrievalError(provider="x", error_msg="y"), errors.AccessDenied, "no AWS credentials"),
        (EndpointConnectionError(endpoint_url="http://x"), errors.QueueError, "did not answer"),
        (ConnectionClosedError(endpoint_url="http://x"), errors.QueueError, "did not answer"),
        (ReadTimeoutError(endpoint_url="http://x"), errors.QueueError, "did not answer"),
        (ResponseParserError("html"), errors.QueueError, "did not answer"),
    ],
)
def test_every_error_of_boto3_becomes_one_of_ours(raised, meant, says):
    def request(**_):
        raise raised

    with pytest.raises(errors.QueueError, match=says) as caught:
        sqs.asked(request)
    assert type(caught.value) is meant


@pytest.mark.parametrize(
    ("code", "gone"),
    [
        ("ReceiptHandleIsInvalid", True),
        ("AWS.SimpleQueueService.MessageNotInflight", True),
        ("InvalidParameterValue", True),
        ("InvalidParameterValueException", True),
        ("InternalError", False),
    ],
)
def test_a_handle_that_no_longer_holds_is_told_from_a_passing_fault(code, gone):
    assert sqs.Refusal(code, sender_fault=False, message="").lease_gone is gone


@given(st.lists(st.integers(1, BODY_BYTES_MAX), max_size=40))
def test_batches_keep_order_and_both_limits(sizes):
    batches = sqs.batches(sizes)
    assert [index for batch in batches for index in batch] == list(range(len(sizes)))
    for batch in batches:
        assert 1 <= len(batch) <= 10
        assert sum(sizes[index] for index in batch) <= BODY_BYTES_MAX


def test_other_services_can_be_had_afterwards_as_credentials_need_them():
    endpoint = Endpoint("https://sqs.eu-west-1.amazonaws.com/123456789012/jobs")
    endpoint.client(read_seconds=1, attempts=1, connections=1, connect_seconds=1)
    assert endpoint._session.create_client("sts", region_name="eu-west-1").meta.service_model.service_name == "sts"


@pytest.mark.parametrize(
    ("url", "arn"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123/jobs", "arn:aws:sqs:eu-west-1:123:jobs"),
        ("https://sqs.eusc-de-east-1.amazonaws.eu/123/jobs", "arn:aws-eusc:sqs:eusc-de-east-1:123:jobs"),
        ("https://sqs.us-gov-west-1.amazonaws.com/123/jobs", "arn:aws-us-gov:sqs:us-gov-west-1:123:jobs"),
        ("http://localhost:9324/000000000000/jobs", "arn:aws:sqs:eu-west-1:000000000000:jobs"),
        ("http://localhost:4566/queue/eu-west-1/000000000000/jobs", "arn:aws:sqs:eu-west-1:000000000000:jobs"),
    ],
)
def test_the_partition_is_the_regions_own(url, arn):
    skip_what_botocore_does_not_know(url)
    assert queue_arn(url, locate(url, {"AWS_REGION": "eu-west-1"})[0]) == arn


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("KMS.ThrottlingException", errors.QueueError),
        ("KMS.DisabledException", errors.AccessDenied),
        ("KMS.AccessDeniedException", errors.AccessDenied),
        ("KMS.NotFoundException", errors.AccessDenied),
        ("KMS.InvalidStateException", errors.AccessDenied),
        ("KMS.OptInRequired", errors.AccessDenied),
    ],
)
def test_kms_is_heard_as_it_speaks_over_the_wire(code, meant):
    def request():
        raise client_error(code, 400)

    with pytest.raises(errors.QueueError) as caught:
        sqs.asked(request)
    assert type(caught.value) is meant


def test_credentials_that_cannot_be_fetched_are_denied_access_not_a_wrong_setting(monkeypatch):
    def create(*_, **__):
        raise MetadataRetrievalError(error_msg="hop limit")

    endpoint = Endpoint("https://sqs.eu-west-1.amazonaws.com/1/q")
    monkeypatch.setattr(endpoint._session, "create_client", create)
    with pytest.raises(errors.AccessDenied, match="hop limit must be 2"):
        endpoint.client(read_seconds=1, attempts=1, connections=1, connect_seconds=1)


def test_what_a_server_leaves_out_is_said_in_one_sentence():
    message = {"MessageId": "m", "ReceiptHandle": "h", "Body": "{}"}
    with pytest.raises(errors.LastingQueueError, match="without 'ApproximateReceiveCount'"):
        sqs._delivery(message)
    with pytest.raises(errors.SettingsError, match="pass --visibility-timeout"):
        sqs.QueueAttributes({}).visibility_timeout_seconds  # noqa: B018


def test_what_a_server_gives_as_null_is_nothing():
    """botocore's parser drops it, and our own client gives what JSON says."""

    class Client:
        def receive_message(self, **_):
            return {"Messages": None}

        def delete_message_batch(self, **_):
            return {"Failed": None}

        def change_message_visibility_batch(self, **_):
            return {"Failed": [{"Id": "0", "Code": "InternalError"}]}

    queue = sqs.Queue(url="u", polling=Client(), working=Client())
    assert queue.receive(most=1, wait_seconds=0, visibility_timeout_seconds=1) == []
    assert queue.delete(["h"]) == {}
    assert queue.change_visibility([("h", 0)])[0].sender_fault is False


def test_a_queue_that_is_not_there_is_said_with_where_it_was_asked_for(monkeypatch):
    def request(**_):
        raise client_error("QueueDoesNotExist", 400)

    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://elsewhere:1")
    says = "No queue http://h/1/q in.*asked at http://elsewhere:1: AWS_ENDPOINT_URL_SQS overrides the URL's host"
    with pytest.raises(errors.QueueNotFound, match=says):
        sqs.asked(request, QueueUrl="http://h/1/q")


def test_an_expired_login_is_denied_access_too():
    def old():
        raise RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired.")

    with pytest.raises(errors.AccessDenied, match="aws login"):
        sqs.asked(old)
    if hasattr(botocore.exceptions, "LoginRefreshRequired"):  # newer botocores know `aws login`

        def expired():
            raise botocore.exceptions.LoginRefreshRequired

        with pytest.raises(errors.AccessDenied):
            sqs.asked(expired)


def test_any_other_error_of_a_client_is_an_sqs_that_did_not_answer():
    """A thread of a worker would end with it, and the worker with the thread."""

    def broken():
        raise RuntimeError("something of botocore's")

    with pytest.raises(errors.QueueError, match="did not answer: something of botocore's"):
        sqs.asked(broken)


def test_the_arn_of_a_queue_beside_aws_is_its_own_word(monkeypatch):
    class Client:
        def get_queue_attributes(self, **_):
            return {"Attributes": {"QueueArn": "arn:aws:sqs:eu-west-1:7:jobs"}}

    endpoint = Endpoint("http://localhost:9324/jobs")
    monkeypatch.setattr(endpoint, "client", lambda **_: Client())
    assert endpoint.arn() == "arn:aws:sqs:eu-west-1:7:jobs"


def test_no_delay_is_asked_for_unless_one_is_wanted():
    sent = []

    class Client:
        def send_message_batch(self, **request):
            sent.extend(request["Entries"])
            return {}

    queue = sqs.Queue(url="u", polling=None, working=Client())
    for delay in (None, 0, 7):
        queue.send(["{}"], delay_seconds=delay, group=None)
    assert [entry.get("DelaySeconds") for entry in sent] == [None, 0, 7]
