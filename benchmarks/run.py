"""Workers side by side on a real ElasticMQ behind a proxy that adds 10 ms, and those that are fast also without.

Each worker runs in turn, several rounds, each time on a fresh queue of no-op jobs: absolute figures of a
noisy machine mean little, ratios within a round do. The slow ones get a tenth of the jobs. CPU is that of
the worker's process tree between its first and its last job, requests are counted by the proxy.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import boto3
import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
APPS = ROOT / "benchmarks" / "apps"
CACHE = ROOT / ".cache" / "bench"
DELAY_SECONDS = 0.01
IDLE_SECONDS = 25
os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Contender:
    name: str
    command: list
    package: str = "jobrunner"
    app: str = ""
    checkout: Path | None = None
    queue: str = "jobs"
    share: float = 1.0
    rounds: list = field(default_factory=list)

    @property
    def bin(self):
        return CACHE / self.package.split("[")[0] / "bin"

    def install(self):
        """Give each package an environment of its own; ours, with the bare loops, is made anew from its checkout."""
        if self.checkout or not self.bin.exists():
            venv.create(self.bin.parent, with_pip=True)
            packages = [self.checkout] if self.checkout else [self.package, "setuptools"]
            subprocess.run([self.bin / "pip", "install", "--quiet", "--force-reinstall", *packages], check=True)


US = ["jobrunner", "consume", "--app-dir", str(APPS)]
CONTENDERS = [
    Contender("bare loop, 1 by 1", ["python", str(APPS / "bare.py"), "1"], share=0.1),
    Contender("bare loop, by 10", ["python", str(APPS / "bare.py"), "10"]),
    Contender("bare loop, by 10, 8 processes", [["python", str(APPS / "bare.py"), "10"]] * 8),
    Contender("jobrunner", US),
    Contender("jobrunner, 2 processes", [["jobrunner", *US[1:]]] * 2),
    Contender("PyQS, 8 processes", ["pyqs", "jobs", "-c", "8"], "pyqs", "peer_pyqs", share=0.1),
    Contender(
        "celery, 8 threads",
        ["celery", "-A", "peer_celery", "worker", "-P", "threads", "-c", "8"],
        "celery[sqs]",
        "peer_celery",
        share=0.1,
    ),
    Contender(
        "dramatiq-sqs, 8 threads",
        ["dramatiq", "peer_dramatiq", "-p", "1", "-t", "8"],
        "dramatiq-sqs",
        "peer_dramatiq",
        queue="bench_jobs",
        share=0.1,
    ),
]


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--jobs", type=int, default=10_000)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--only", default="", help="contenders whose name holds this text")
    words.add_argument("--before", type=Path, help="another checkout of jobrunner, to compare with")
    options = words.parse_args()
    from proxy import Proxy
    from servers import ElasticMQ

    before = [Contender("jobrunner before", US, "before", checkout=options.before)] if options.before else []
    contenders = [contender for contender in (*CONTENDERS, *before) if options.only in contender.name]
    fast = [replace(contender, rounds=[]) for contender in contenders if contender.share == 1]
    for contender in contenders:
        if contender.package == "jobrunner":
            contender.checkout = ROOT
    for contender in {contender.package: contender for contender in contenders}.values():
        contender.install()
    with tempfile.TemporaryDirectory() as folder:
        server = ElasticMQ(Path(folder), in_memory=True).start()
        proxy = Proxy(server.url, delay_seconds=DELAY_SECONDS)
        try:
            run(contenders, server, proxy, options)
            proxy.delay_seconds = 0
            run(fast, server, proxy, options)
        finally:
            server.kill()
    print(f"{table(contenders)}\n\nWithout the delay:\n\n{table(fast)}")


def run(contenders, server, proxy, options):
    for number in range(options.rounds):
        for contender in contenders:
            count = round(options.jobs * contender.share)
            contender.rounds.append(measure(contender, count, server, proxy, idle=number == 0 and proxy.delay_seconds))
            print(contender.name, contender.rounds[-1], file=sys.stderr)


def measure(contender, count, server, proxy, *, idle):
    direct = boto3.client("sqs", endpoint_url=server.url)
    url = direct.create_queue(QueueName=contender.queue, Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
    fill(contender, direct, url, server, count)
    proxy.requests.clear()
    environment = os.environ | {
        "JOBRUNNER_QUEUE_URL": url,
        "AWS_ENDPOINT_URL_SQS": proxy.url,
        "PYTHONPATH": str(APPS),
        "PATH": f"{contender.bin}:{os.environ['PATH']}",
    }
    commands = contender.command if isinstance(contender.command[0], list) else [contender.command]
    with (CACHE / "worker.log").open("w") as log:
        workers = [
            psutil.Popen(command, env=environment, cwd=APPS, stdout=log, stderr=log, start_new_session=True)
            for command in commands
        ]
        try:
            return watch(workers, direct, url, count, proxy, idle=idle)
        finally:
            for process in [child for worker in workers for child in tree(worker)]:
                process.kill()
            for worker in workers:
                worker.wait()
            direct.delete_queue(QueueUrl=url)


def fill(contender, direct, url, server, count):
    environment = os.environ | {
        "JOBRUNNER_QUEUE_URL": url,
        "AWS_ENDPOINT_URL_SQS": server.url,
        "PYTHONPATH": str(APPS),
    }
    if contender.app and contender.app != "peer_pyqs":
        code = f"import {contender.app}; {contender.app}.send({count})"
        subprocess.run([contender.bin / "python", "-c", code], check=True, env=environment, cwd=APPS)
        return
    body = '{"task": "peer_pyqs.noop", "args": [], "kwargs": {}}' if contender.app else '{"method": "noop"}'
    fill_bodies(direct, url, body, count)


def fill_bodies(direct, url, body, count):
    for start in range(0, count, 10):
        entries = [{"Id": str(n), "MessageBody": body} for n in range(min(10, count - start))]
        direct.send_message_batch(QueueUrl=url, Entries=entries)


def watch(workers, direct, url, count, proxy, *, idle):
    def deletes():
        return [at for at, action in list(proxy.requests) if action.startswith("DeleteMessage")]

    deadline = time.monotonic() + 300
    while not deletes():
        time.sleep(0.002)
        assert time.monotonic() < deadline, (CACHE / "worker.log").read_text()[-2000:]
    began, cpu = time.monotonic(), cpu_seconds(workers)
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    while sum(map(int, direct.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values())):
        time.sleep(0.1)
        assert time.monotonic() < deadline, (CACHE / "worker.log").read_text()[-2000:]
    cpu = cpu_seconds(workers) - cpu
    ended = max(deletes())
    actions = Counter(action for at, action in proxy.requests if at <= ended)
    result = {
        "jobs_s": count / (ended - began),
        "cpu": 1000 * cpu / count,
        "requests": sum(actions.values()) / count,
        "by_action": dict(actions),
        "rss": sum(p.memory_info().rss for worker in workers for p in tree(worker)) / 2**20,
    }
    if idle:
        start = time.monotonic() + 1
        time.sleep(IDLE_SECONDS)
        result["idle"] = len(proxy.between(start, time.monotonic())) * 60 / (IDLE_SECONDS - 1)
    return result


def tree(worker):
    try:
        return [worker, *worker.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(workers):
    return sum(sum(p.cpu_times()[:2]) for worker in workers for p in tree(worker))


HEAD = ("worker", "jobs/s", "of the bare loop by 10", "CPU s per 1,000 jobs", "requests per job", "idle a minute", "MB")


def table(contenders):
    base = next((c for c in contenders if c.name == "bare loop, by 10"), contenders[0])
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for contender in contenders:
        rounds = contender.rounds
        middle = {key: statistics.median(one[key] for one in rounds) for key in ("jobs_s", "cpu", "requests", "rss")}
        speeds = sorted(one["jobs_s"] for one in rounds)
        pairs = zip(rounds, base.rounds, strict=True)
        ratio = statistics.median(mine["jobs_s"] / theirs["jobs_s"] for mine, theirs in pairs)
        idle = f"{rounds[0]['idle']:.0f}" if "idle" in rounds[0] else "-"
        lines.append(
            f"| {contender.name} | {middle['jobs_s']:,.0f} ({speeds[0]:,.0f} to {speeds[-1]:,.0f}) | {ratio:.2f} | "
            f"{middle['cpu']:.2f} | {middle['requests']:.2f} | {idle} | {middle['rss']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
