"""Dramatiq with dramatiq_sqs, with the middleware that its README names."""

import os

import dramatiq
from dramatiq.middleware import AgeLimit, Callbacks, Pipelines, Retries, TimeLimit
from dramatiq_sqs import SQSBroker

broker = SQSBroker(
    namespace="bench",
    endpoint_url=os.environ["AWS_ENDPOINT_URL_SQS"],
    middleware=[AgeLimit(), TimeLimit(), Callbacks(), Pipelines(), Retries()],
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="jobs")
def noop():
    pass


def send(count):
    for _ in range(count):
        noop.send()
