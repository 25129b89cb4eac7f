"""What `make demo` runs as the web app's stand-in: puts real jobs on the queue and tells what became of each."""

import logging
import os
import sys
import time
from contextlib import suppress
from threading import Event, Thread

import boto3
from PIL import Image, ImageDraw
from werkzeug.serving import make_server

from jobrunner import enqueue, enqueue_many
from jobs import _records, mishaps, newsletter, thumbnails
from web.app import app

WAIT_SECONDS = 60
COLORS = ("tomato", "gold", "seagreen", "steelblue")


def draw(key, color):
    picture = Image.new("RGB", (1600, 1200), color)
    ImageDraw.Draw(picture).ellipse((400, 200, 1200, 1000), fill="white")
    picture.save(_records.folder("uploads") / key, "PNG")


def wait_for(what, is_so):
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"demo: waited {WAIT_SECONDS} s for {what}")
        time.sleep(0.2)


def left_on_queue():
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    queue_url = os.environ["JOBRUNNER_QUEUE_URL"]
    found = boto3.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
    return sum(int(count) for count in found["Attributes"].values())


def serve_page():
    """Serve the demo's page as well, on a thread."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"the page, while this runs: http://127.0.0.1:{server.server_port}/", flush=True)


def main():
    started = time.time()
    serve_page()
    keys = [f"demo-{color}" for color in COLORS]
    for key, color in zip(keys, COLORS, strict=True):
        _records.update(key, state="queued", name=f"{color}.png", kind="thumbnail", created=started)
        draw(key, color)
    _records.update("demo-stumble", state="queued", name="stumble", kind="mishap", created=started)

    enqueue_many([(thumbnails.make, {"key": key}) for key in keys])
    enqueue(newsletter.write)
    enqueue(mishaps.stumble, {"key": "demo-stumble", "times": 1})
    enqueue("thumbnails.mak", {"key": keys[0]})

    def states():
        return {record["key"]: record["state"] for record in _records.latest() if record["created"] == started}

    def letters():
        return [path for path in _records.folder("newsletters").iterdir() if path.stat().st_mtime > started]

    wait_for(
        "all that can be done", lambda: set(states().values()) == {"done"} and len(letters()) == len(newsletter.MEMBERS)
    )
    wait_for("their messages to be deleted", lambda: left_on_queue() == 1)
    attempts = {record["key"]: record["attempt"] for record in _records.latest()}
    print("\nWhat happened:")
    for key in keys:
        print(f"  thumbnails.make    done at attempt {attempts[key]}: {_records.folder('thumbnails') / key}.png")
    print(f"  newsletter.write   done: {len(letters())} letters in {_records.folder('newsletters')}")
    print(f"  mishaps.stumble    failed once, done at attempt {attempts['demo-stumble']}")
    print("  thumbnails.mak     no such method: its message waits on the queue for a deploy that knows it")
    if sys.stdout.isatty():
        print("\nThe page stays until Ctrl-C.", flush=True)
        with suppress(KeyboardInterrupt):
            Event().wait()


if __name__ == "__main__":
    main()
