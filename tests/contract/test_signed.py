"""A server that checks signatures and policies: moto's, with its checks on; by both ways of asking."""

import subprocess
import sys
import urllib.request

import boto3
import pytest
from servers import free_port, wait_for

from jobrunner.errors import AccessDenied
from jobrunner.queue import requests as sqs
from jobrunner.queue.endpoint import Endpoint

#: moto asks for the batch actions by their own names, which AWS does not have.
POLICY = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": [
    "sqs:ReceiveMessage", "sqs:GetQueueAttributes", "sqs:SendMessage*", "sqs:ChangeMessageVisibility*"]}]}"""


@pytest.fixture(scope="module")
def strict():
    """A moto of its own, a queue, and a user who may do all but delete; gives URL and keys."""
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(url), what="moto")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            make = {"endpoint_url": url, "region_name": "us-east-1"}
            iam = boto3.client("iam", **make)
            iam.create_user(UserName="worker")
            iam.put_user_policy(UserName="worker", PolicyName="worker", PolicyDocument=POLICY)
            keys = iam.create_access_key(UserName="worker")["AccessKey"]
            queue_url = boto3.client("sqs", **make).create_queue(QueueName="jobs")["QueueUrl"]
        check = urllib.request.Request(f"{url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
        urllib.request.urlopen(check).close()
        yield queue_url, keys["AccessKeyId"], keys["SecretAccessKey"]
    finally:
        server.terminate()
        server.wait(20)


def answers(url):
    try:
        urllib.request.urlopen(f"{url}/moto-api/data.json").close()
    except OSError:
        return False
    return True


@pytest.fixture(params=["lean", "botocore"])
def queue(strict, request, monkeypatch):
    if request.param == "botocore":
        monkeypatch.setattr(Endpoint, "lean_client", Endpoint.client)

    def queue(secret=None):
        url, key, own = strict
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret or own)
        return sqs.working_queue(url, visibility_seconds=30)

    return queue


def receive(queue):
    return queue.receive(most=10, wait_seconds=0, visibility_timeout_seconds=30, probing=True)


def test_the_right_signature_is_taken_and_the_policy_heeded(queue):
    found = queue()
    assert found.send(['{"method": "a"}'], delay_seconds=0, group=None) == {}
    delivery, *_ = receive(found)
    assert found.change_visibility([(delivery.receipt_handle, 0)]) == {}
    with pytest.raises(AccessDenied, match=r"not authorized to perform: sqs:DeleteMessage"):
        found.delete([delivery.receipt_handle])


def test_a_wrong_one_is_refused(queue):
    with pytest.raises(AccessDenied, match="SignatureDoesNotMatch"):
        receive(queue("not the secret"))
