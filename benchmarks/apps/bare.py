"""The loop that one would write by hand: receive up to SIZE, look each function up, run it, delete."""

import json
import os
import sys

import boto3

import jobs

url, size = os.environ["JOBRUNNER_QUEUE_URL"], int(sys.argv[1])
sqs = boto3.client("sqs")
while True:
    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=size, WaitTimeSeconds=20)
    messages = answer.get("Messages", [])
    for message in messages:
        call = json.loads(message["Body"])
        getattr(jobs, call["method"])(**call.get("params", {}))
        if size == 1:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    if size > 1 and messages:
        entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
        sqs.delete_message_batch(QueueUrl=url, Entries=entries)
