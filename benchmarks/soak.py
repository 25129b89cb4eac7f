"""One worker for a long time: steady jobs, some that fail, outages of each kind, SIGUSR1; prints a line a minute.

At the end: was every job done, and what became of memory, descriptors and threads since the tenth minute?
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
KINDS = ("refuse", "reset", "hang", "unavailable", "throttle", "lost", "denied")
OUTAGE_EVERY_SECONDS, OUTAGE_SECONDS, DUMP_EVERY_SECONDS = 180, 15, 300
SETTLED_MINUTE = 10
FAILING = 0.02
JOBS = """
import os, time
from jobrunner import current_job
FILE = os.open(os.path.join(os.path.dirname(__file__), "done.txt"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def work(n, seconds, fails):
    time.sleep(seconds)
    if fails and current_job().attempt == 1:
        held = bytearray(1_000_000)
        raise ValueError(n, len(held))
    os.write(FILE, f"{n}\\n".encode())
async def wait(n, seconds, fails):
    import asyncio
    await asyncio.sleep(seconds)
    work(n, 0, fails)
"""


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--minutes", type=float, default=60)
    words.add_argument("--per-second", type=int, default=50)
    options = words.parse_args()
    from proxy import Proxy
    from servers import ElasticMQ, counts, make_queue

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jobs.py").write_text(JOBS)
        server = ElasticMQ(folder, in_memory=True).start()
        proxy = Proxy(server.url, delay_seconds=0.005)
        url = make_queue(server.url, "soak", attempts_max=10, visibility_seconds=60)
        environment = {**os.environ, "AWS_ENDPOINT_URL_SQS": proxy.url, "TMPDIR": name}
        command = [sys.executable, "-P", "-m", "jobrunner", "consume", "--queue-url", url, "--app-dir", name]
        command += ["--wait-seconds", "5", "--status-file", str(folder / "status.json"), "--metrics", "emf"]
        with (folder / "log.txt").open("w") as log:
            worker = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            sent, samples = soak(worker, proxy, url, options)
            deadline = time.monotonic() + 300
            while sum(counts(url)) and time.monotonic() < deadline:
                time.sleep(1)
            lost = report(folder, sent, samples, sum(counts(url)), sum(counts(url, dead=True)))
            worker.terminate()
            print("exit code", worker.wait(10), flush=True)
            return 1 if lost else 0
        finally:
            if worker.is_running():
                worker.kill()
            server.kill()


def soak(worker, proxy, url, options):
    """Send at the rate until the time is over; gives how many, and a sample a minute."""
    from jobrunner import enqueue_many

    os.environ["AWS_ENDPOINT_URL_SQS"] = url.rsplit("/", 2)[0]
    began, sent, samples, kinds = time.monotonic(), 0, [], []
    threading.Thread(target=trouble, args=(worker, proxy, began + options.minutes * 60, kinds), daemon=True).start()
    while (now := time.monotonic() - began) < options.minutes * 60:
        due = int(now * options.per_second)
        enqueue_many([(random.choice(("work", "wait")), params(n)) for n in range(sent, due)], queue_url=url)
        sent = due
        if now // 60 >= len(samples):
            sample = worker.memory_info().rss / 2**20, worker.num_fds(), worker.num_threads()
            samples.append(sample)
            print(f"{now / 60:5.1f} min {sent} sent, {sample[0]:.1f} MB, {sample[1:]} {kinds[-1:]}", flush=True)
        time.sleep(0.2)
    return sent, samples


def params(n):
    return {"n": n, "seconds": random.random() / 10, "fails": random.random() < FAILING}


def trouble(worker, proxy, end, kinds):
    """Break SQS now and then, in each way in turn, and ask the worker where it stands."""
    dumped = time.monotonic()
    while time.monotonic() < end - OUTAGE_EVERY_SECONDS:
        time.sleep(OUTAGE_EVERY_SECONDS)
        kinds.append(KINDS[len(kinds) % len(KINDS)])
        proxy.refuse() if kinds[-1] == "refuse" else proxy.fault(kinds[-1], share=0.7 if kinds[-1] == "lost" else 1)
        time.sleep(OUTAGE_SECONDS)
        proxy.accept() if kinds[-1] == "refuse" else proxy.end_faults()
        if time.monotonic() - dumped > DUMP_EVERY_SECONDS:
            worker.send_signal(signal.SIGUSR1)
            dumped = time.monotonic()


def report(folder, sent, samples, left, dead):
    done = (folder / "done.txt").read_text().split()
    log = (folder / "log.txt").read_text()
    lost = set(map(str, range(sent))) - set(done)
    print(f"{sent} sent, {len(lost)} lost, {len(done) - len(set(done))} done again, {left} left, {dead} dead letters")
    print(
        {event: log.count(f'"event":"{event}"') for event in ("job.done", "job.failed", "sqs.outage", "sqs.recovered")}
    )
    first, last = samples[min(SETTLED_MINUTE, len(samples) - 1)], samples[-1]
    print(f"since minute {SETTLED_MINUTE}: {last[0] - first[0]:+.1f} MB, descriptors {first[1]} to {last[1]}, ", end="")
    print(f"threads {first[2]} to {last[2]}; highest {max(sample[0] for sample in samples):.1f} MB", flush=True)
    return bool(lost or left or dead)


if __name__ == "__main__":
    sys.exit(main())
