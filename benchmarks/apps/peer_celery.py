"""Celery on SQS, as its documentation has it, with late acknowledgement so that both keep a job until it ran."""

import os

from celery import Celery

app = Celery("bench", broker="sqs://", task_ignore_result=True, task_acks_late=True, task_default_queue="jobs")
app.conf.broker_transport_options = {
    "region": "us-east-1",
    "predefined_queues": {"jobs": {"url": os.environ["JOBRUNNER_QUEUE_URL"]}},
    "wait_time_seconds": 20,
}


@app.task
def noop():
    pass


def send(count):
    for _ in range(count):
        noop.delay()
