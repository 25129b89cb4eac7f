"""An SQS of our own for a laptop (moto's server), with its queues; main thread, the server on threads of its own."""

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jobrunner.errors import SettingsError
from jobrunner.operate.rules import RETENTION_SECONDS_MAX
from jobrunner.queue.endpoint import Endpoint

#: Short, so that a killed worker's jobs are seen again soon.
VISIBILITY_SECONDS = 30
LATER_GROUP = "later"


@contextmanager
def embedded_sqs(port: int, queues: Sequence[str], attempts_max: int) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Run it with these queues and the dead letters of each; gives the environment that leads there, and their URLs."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        raise SettingsError(
            "the embedded SQS is not installed: pip install 'jobrunner-sqs[dev]'. "
            "Or run ElasticMQ and `jobrunner consume` against it"
        ) from None
    _check_port(port)
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # else a line a request, and a stack for what moto lacks
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        environment = {
            "AWS_ENDPOINT_URL_SQS": address,
            "AWS_ENDPOINT_URL_SCHEDULER": address,
            "JOBRUNNER_LATER_GROUP": LATER_GROUP,
            "JOBRUNNER_LATER_ROLE_ARN": "arn:aws:iam::123456789012:role/later",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        os.environ.update(environment)  # for our own client as for the children
        client = Endpoint(address).client(read_seconds=10, attempts=1, connections=1, connect_seconds=10)
        yield environment, [_create(client, name, attempts_max) for name in queues]
    finally:
        server.stop()


def _check_port(port: int) -> None:
    """Raise SettingsError for a port that is taken: moto's server would wait for it without a word."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(f"--port {port}: {error.strerror}. Leave --port out for a free one") from None


def _create(client: Any, name: str, attempts_max: int) -> str:
    # Longer than the queue's own: a dead letter keeps the age it had.
    dead = client.create_queue(
        QueueName=f"{name}-dead", Attributes={"MessageRetentionPeriod": str(RETENTION_SECONDS_MAX)}
    )["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": attempts_max})
    attributes = {"VisibilityTimeout": str(VISIBILITY_SECONDS), "RedrivePolicy": redrive}
    url: str = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url
