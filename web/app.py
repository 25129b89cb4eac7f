"""One page: upload pictures, watch their jobs, look at the queue. The example of how an app uses jobrunner."""

import os
import re
import uuid
from functools import lru_cache

import boto3
from botocore.config import Config
from flask import Flask, abort, jsonify, redirect, render_template, request, send_file, url_for
from PIL import Image, UnidentifiedImageError
from werkzeug.exceptions import RequestEntityTooLarge

from jobrunner import QueueError, enqueue
from jobs import _pictures, _records, mishaps, newsletter, thumbnails

UPLOAD_BYTES_MAX = 10 * 1024 * 1024
DRAIN_BYTES_MAX = 10 * UPLOAD_BYTES_MAX
KEY = re.compile(r"[0-9a-f]{32}")

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = UPLOAD_BYTES_MAX


@app.get("/")
def page():
    return render_template("page.html", error=request.args.get("error", "")[:200], **state())


@app.get("/state")
def fragment():
    """Give the part of the page that changes: its script asks for it every second."""
    return render_template("state.html", **state())


@app.get("/healthz")
def healthz():
    return jsonify(ok=True)


@app.post("/pictures")
def upload():
    for picture in request.files.getlist("pictures"):
        if not picture.filename:
            continue
        reason = reason_to_refuse(picture.stream)
        if reason:
            return redirect(url_for("page", error=f"{picture.filename[:80]}: {reason}"))
        key = uuid.uuid4().hex  # never a name of the user's: it may be anything
        _records.write(_records.folder("uploads") / key, picture.read())
        _records.update(key, kind="picture", name=picture.filename[:80], state="queued")
        try:
            enqueue(thumbnails.make, {"key": key}, context={"request_id": request_id()})
        except QueueError:
            _records.update(key, state="failed")
            raise
    return redirect(url_for("page"))


@app.post("/mishaps")
def fail():
    key = uuid.uuid4().hex
    _records.update(key, kind="mishap", name="a job that stumbles twice", state="queued")
    enqueue(mishaps.stumble, {"key": key}, context={"request_id": request_id()})
    return redirect(url_for("page"))


@app.post("/newsletters")
def write():
    enqueue(newsletter.write, context={"request_id": request_id()})
    return redirect(url_for("page"))


@app.get("/thumbnails/<key>.png")
def thumbnail(key):
    path = _records.folder("thumbnails") / f"{key}.png"
    if not KEY.fullmatch(key) or not path.exists():
        abort(404)
    return send_file(path.resolve(), mimetype="image/png", max_age=3600)


@app.errorhandler(QueueError)
def no_queue(_error):
    return redirect(url_for("page", error="SQS does not answer: try again in a while"))


@app.errorhandler(RequestEntityTooLarge)
def too_large(_error):
    # A browser sends all before it reads our answer; past a limit it may see a reset instead.
    for _ in range(DRAIN_BYTES_MAX // 65536):
        if not request.environ["wsgi.input"].read(65536):
            break
    return redirect(url_for("page", error=f"more than {UPLOAD_BYTES_MAX // 1024 // 1024} MB in one upload"))


@app.after_request
def harden(response):
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def reason_to_refuse(stream):
    """Say why an upload is no picture for us; only its header is read, so that a bomb stays folded."""
    try:
        with Image.open(stream) as picture:
            _pictures.check_size(picture)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return "not a picture, or one with too many pixels"
    finally:
        stream.seek(0)
    return ""


def request_id():
    return request.headers.get("X-Request-Id", uuid.uuid4().hex[:8])[:64]


def state():
    letters = sorted(_records.folder("newsletters").glob("[0-9]*.txt"), reverse=True)
    return {"tasks": _records.latest(), "letters": [path.stem for path in letters[:6]], "queue": queue_counts()}


def queue_counts():
    """Count messages: waiting, running, waiting for a retry, dead."""
    url = os.environ["JOBRUNNER_QUEUE_URL"]
    names = ["", "NotVisible", "Delayed"]
    try:
        counts = [sqs_counts(url)[f"ApproximateNumberOfMessages{name}"] for name in names]
        dead = sqs_counts(f"{url}-dead")["ApproximateNumberOfMessages"]
    except Exception:
        app.logger.exception("the queue could not be asked")
        return None
    return {"visible": counts[0], "hidden": counts[1], "delayed": counts[2], "dead": dead}


def sqs_counts(url):
    return client(os.getpid()).get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]


@lru_cache(maxsize=1)
def client(_pid):
    # The page must come also when SQS does not answer.
    config = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})
    return boto3.client("sqs", config=config)
