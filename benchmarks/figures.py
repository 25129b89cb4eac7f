"""The other figures, each against the bare loop by 10 in the same run: naps, waiting, starting, sending, memory.

Same set-up as run.py: a real ElasticMQ behind a proxy that adds 10 ms.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import boto3
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from run import APPS, CACHE, DELAY_SECONDS, ROOT, US, fill_bodies

sys.path.insert(0, str(ROOT))
from proxy import Proxy
from servers import ElasticMQ

BARE = ["python", str(APPS / "bare.py"), "10"]
ROUNDS = 5


class Bench:
    def __init__(self, server, proxy):
        self.server = server
        self.proxy = proxy
        self.sqs = boto3.client("sqs", endpoint_url=server.url)

    def queue(self):
        name = f"q{time.monotonic_ns()}"
        return self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "60"})["QueueUrl"]

    def start(self, command, url):
        environment = os.environ | {
            "JOBRUNNER_QUEUE_URL": url,
            "AWS_ENDPOINT_URL_SQS": self.proxy.url,
            "PYTHONPATH": str(APPS),
            "PATH": f"{CACHE / 'jobrunner' / 'bin'}:{os.environ['PATH']}",
        }
        with (CACHE / "figures.log").open("w") as log:
            return psutil.Popen(command, env=environment, cwd=APPS, stdout=log, stderr=log, start_new_session=True)

    def left(self, url):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return sum(map(int, self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()))

    def wait_until_empty(self, url):
        while self.left(url):
            time.sleep(0.05)

    def deletes(self, since):
        return [at for at, action in list(self.proxy.requests) if action.startswith("Delete") and at > since]


def naps(bench):
    """400 jobs of 0.1 s on 8 threads: the ideal is 80 a second."""
    url = bench.queue()
    fill_bodies(bench.sqs, url, '{"method": "nap", "params": {"seconds": 0.1}}', 400)
    worker = bench.start(US, url)
    first = wait_for_receive(bench)
    bench.wait_until_empty(url)
    seconds = max(bench.deletes(first)) - first
    worker.kill()
    return 400 / seconds / 80


def wait_for_receive(bench):
    bench.proxy.requests.clear()
    while not (receives := [at for at, action in list(bench.proxy.requests) if action == "ReceiveMessage"]):
        time.sleep(0.001)
    return receives[0] + DELAY_SECONDS


def waiting(bench, command):
    """Median from send to start of single jobs on an idle worker, in ms."""
    url = bench.queue()
    worker = bench.start(command, url)
    wait_for_receive(bench)
    stamps = CACHE / "stamps.txt"
    stamps.write_text("")
    for _ in range(60):
        time.sleep(0.1)
        body = json.dumps({"method": "stamp", "params": {"path": str(stamps), "sent": time.time()}})
        bench.sqs.send_message(QueueUrl=url, MessageBody=body)
    time.sleep(0.2)
    worker.kill()
    return 1000 * statistics.median(map(float, stamps.read_text().split()))


def starting(bench, command):
    """From the start of the process to its first delete, in ms."""
    url = bench.queue()
    fill_bodies(bench.sqs, url, '{"method": "noop"}', 1)
    began = time.monotonic()
    worker = bench.start(command, url)
    while not bench.deletes(began):
        time.sleep(0.001)
    worker.kill()
    return 1000 * (bench.deletes(began)[0] - began)


def sending(bench):
    """Requests for each of 10,000 jobs by enqueue_many, and whether ids are in order."""
    from jobrunner import enqueue_many

    url = bench.queue()
    os.environ["AWS_ENDPOINT_URL_SQS"] = bench.proxy.url
    bench.proxy.requests.clear()
    began = time.monotonic()
    ids = enqueue_many((("noop", {"n": n}) for n in range(10_000)), queue_url=url)
    seconds = time.monotonic() - began
    assert len(set(ids)) == 10_000
    return len(bench.proxy.requests) / 10_000, 10_000 / seconds


def memory(bench):
    """Resident MB after 10,000 and after 100,000 jobs of one process."""
    url = bench.queue()
    worker = bench.start(US, url)
    seen = []
    for count in (10_000, 90_000):
        fill_bodies(bench.sqs, url, '{"method": "noop"}', count)
        bench.wait_until_empty(url)
        seen.append(worker.memory_info().rss / 2**20)
    worker.kill()
    return seen


def main():
    with tempfile.TemporaryDirectory() as folder:
        server = ElasticMQ(Path(folder), in_memory=True).start()
        try:
            bench = Bench(server, Proxy(server.url, delay_seconds=DELAY_SECONDS))
            print(f"naps: {statistics.median(naps(bench) for _ in range(ROUNDS)):.3f} of the ideal", flush=True)
            for name, measure in (("send to start", waiting), ("start to first delete", starting)):
                pairs = [(measure(bench, US), measure(bench, BARE)) for _ in range(ROUNDS)]
                ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
                ratio = statistics.median(mine / other for mine, other in pairs)
                print(f"{name}: {ours:.1f} ms, bare {theirs:.1f} ms, ratio {ratio:.2f}", flush=True)
            print(
                "enqueue_many: {:.2f} requests a job, {:,.0f} jobs/s, ids in order".format(*sending(bench)), flush=True
            )
            print("memory: {:.1f} MB after 10,000 jobs, {:.1f} MB after 100,000".format(*memory(bench)), flush=True)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
