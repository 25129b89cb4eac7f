"""What the web app calls: checked before it is sent, and honest about what was not."""

import asyncio
import functools
import os
import pickle
import re
import socket
import sys
import time
import types
import uuid
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest

from jobrunner import (
    BadParams,
    EnqueueError,
    MalformedMessage,
    SettingsError,
    UnknownMethod,
    current_job,
    enqueue,
    enqueue_many,
)
from jobrunner.app import catalog
from jobrunner.app.catalog import Catalog, Job
from jobrunner.errors import AccessDenied, QueueError, QueueNotFound, RequestRefused
from jobrunner.message import decode
from jobrunner.queue import requests as sqs
from jobrunner.queue.requests import Refusal
from jobrunner.sending import delivery, inline

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"


class FakeSqs:
    """Takes what is sent; `answers` are given in turn, one a request: refusals or an error."""

    def __init__(self):
        self.bodies = []
        self.answers = []

    def send(self, bodies, *, delay_seconds, group):
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            raise answer
        self.bodies += [(body, delay_seconds, group) for index, body in enumerate(bodies) if index not in answer]
        return answer


@pytest.fixture
def queue(monkeypatch):
    fake = FakeSqs()
    monkeypatch.setattr(delivery, "_queue", functools.lru_cache(lambda *_: fake))
    monkeypatch.setattr(delivery, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(delivery, "PARALLEL", 1)
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", URL)
    return fake


@pytest.fixture
def jobs(monkeypatch):
    """An app's jobs module, imported."""
    module = types.ModuleType("jobs.shop")
    source = (
        "from jobrunner import current_job\nseen = []\n"
        "def ship(id, fast=False):\n    seen.append((id, fast, current_job().id))\n"
        "def fail():\n    raise ZeroDivisionError\n"
        "async def bill(id):\n    seen.append(id)\n"
        "def numbers():\n    yield 7\n"
        "class Thing: pass\n"
    )
    exec(source, vars(module))
    package = types.ModuleType("jobs")
    monkeypatch.setitem(sys.modules, "jobs", package)
    monkeypatch.setitem(sys.modules, "jobs.shop", module)
    entries = {f"shop.{name}": Job.of(f"shop.{name}", vars(module)[name]) for name in ("ship", "fail", "bill")}
    catalog = Catalog(module="jobs", jobs=entries, left_out={})
    monkeypatch.setattr(inline, "_catalog", lambda _module: catalog)
    return module


def test_what_is_sent_is_the_wire_format_with_an_id_made_before_the_first_try(queue):
    job_id = enqueue("thumbnails.make", {"key": "a"}, delay_seconds=30, group="t", context={"request_id": "r"})
    ((body, delay_seconds, group),) = queue.bodies
    call = decode(body)
    assert (call.method, call.params, call.context, call.id) == (
        "thumbnails.make",
        {"key": "a"},
        {"request_id": "r"},
        job_id,
    )
    assert (delay_seconds, group) == (30, "t")


def test_by_function_the_name_is_derived_and_the_params_are_bound_first(queue, jobs):
    enqueue(jobs.ship, {"id": 7})
    assert decode(queue.bodies[0][0]).method == "shop.ship"
    with pytest.raises(BadParams, match="missing a required argument: 'id'"):
        enqueue(jobs.ship)
    with pytest.raises(UnknownMethod, match="outside the jobs module 'jobs'.*JOBRUNNER_MODULE"):
        enqueue(test_by_function_the_name_is_derived_and_the_params_are_bound_first)
    with pytest.raises(UnknownMethod):
        enqueue(partial(jobs.ship, 7))
    with pytest.raises(UnknownMethod, match="jobs.shop.numbers is no job: it is a generator"):
        enqueue(jobs.numbers)
    with pytest.raises(UnknownMethod, match="jobs.shop.Thing is no job: it is not a function"):
        enqueue(jobs.Thing)
    assert len(queue.bodies) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"method": "a", "delay_seconds": 901}, SettingsError, "0 to 900.*EventBridge Scheduler"),
        ({"method": "a b"}, MalformedMessage, "not dotted"),
        ({"method": "a", "params": {"x": {1}}}, MalformedMessage, "is a set"),
        ({"method": "a", "context": {"x": [1]}}, MalformedMessage, r"context\['x'\] is \[1\]: context holds texts"),
        ({"method": "a", "context": {7: "x"}}, MalformedMessage, r"context\[7\]"),
        ({"method": None}, SettingsError, "method is None.*you called it: pass the function itself"),
        ({"method": "a", "queue_url": "jobs"}, SettingsError, "not a queue URL"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_sent(queue, arguments, error, says):
    with pytest.raises(error, match=says):
        enqueue(**arguments)
    assert queue.bodies == []


def test_what_a_logging_context_holds_goes_as_text(queue):
    number = uuid.uuid4()
    enqueue("a", context={"n": 7, "nothing": None, "share": 0.5, "is": True, "id": number, "day": date(2026, 11, 24)})
    texts = {"n": "7", "nothing": "None", "share": "0.5", "is": "True", "id": str(number), "day": "2026-11-24"}
    assert decode(queue.bodies[0][0]).context == texts


def test_a_function_goes_by_the_name_under_which_a_worker_finds_it(queue, jobs):
    jobs.short = lambda: None
    jobs.short.__module__ = jobs.__name__
    jobs.alias = jobs.short
    enqueue(jobs.short)
    assert decode(queue.bodies[0][0]).method == "shop.short"


def test_without_a_queue_the_cure_is_said():
    with pytest.raises(SettingsError, match="set JOBRUNNER_QUEUE_URL.*`jobrunner dev` makes one"):
        enqueue("a")


def test_a_refused_single_job_is_an_error(queue):
    queue.answers = [{0: Refusal("InvalidMessageContents", sender_fault=True, message="no")}]
    with pytest.raises(RequestRefused, match="InvalidMessageContents: no"):
        enqueue("a")


def test_many_go_by_the_ten_and_ids_come_back_in_order(queue):
    ids = enqueue_many(("a", {"n": n}) for n in range(25))
    assert [decode(body).id for body, _, _ in queue.bodies] == ids
    assert [decode(body).params["n"] for body, _, _ in queue.bodies] == list(range(25))


def test_many_are_all_checked_before_the_first_is_sent(queue):
    with pytest.raises(MalformedMessage):
        enqueue_many([("a", {}), ("b", {"x": object()})])
    assert queue.bodies == []


def test_many_say_exactly_what_was_sent_what_not_and_what_is_unknown(queue):
    mine, theirs = (Refusal("X", sender_fault=fault, message="m") for fault in (True, False))
    queue.answers = [
        {1: mine, 2: theirs},
        {},  # the first ten: 1 is wrong, 2 goes through at the second try
        *[QueueError("answer lost")] * 3,  # the second ten: nobody knows
        RequestRefused("no"),  # the third: SQS did nothing
    ]
    with pytest.raises(EnqueueError, match=r"of 35 jobs 11 were not sent, 10 may have been") as caught:
        enqueue_many(("a", None) for _ in range(35))
    error = caught.value
    assert error.not_sent == [1, *range(20, 30)]
    assert error.unknown == list(range(10, 20))
    assert error.sent == [0, *range(2, 10), *range(30, 35)]
    assert len(error.ids) == 35


def test_what_fails_by_sqs_own_fault_is_tried_a_limited_number_of_times(queue):
    queue.answers = [{0: Refusal("InternalError", sender_fault=False, message="m")}] * 3
    with pytest.raises(EnqueueError, match="InternalError") as caught:
        enqueue_many([("a", None)])
    assert caught.value.not_sent == [0]
    assert queue.answers == []


def test_inline_runs_the_job_at_once_in_the_caller(jobs, monkeypatch):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "inline:")
    job_id = enqueue("shop.ship", {"id": 7})
    assert jobs.seen == [(7, False, job_id)]
    enqueue(jobs.bill, [8])
    assert jobs.seen[-1] == 8
    assert len(enqueue_many([("shop.bill", [9]), ("shop.bill", [10])])) == 2
    assert jobs.seen[-2:] == [9, 10]


def test_inline_raises_what_the_job_raises_and_what_a_worker_would_refuse(jobs, monkeypatch):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "inline:")
    for arguments, error in [
        (("shop.fail",), ZeroDivisionError),
        (("shop.nope",), UnknownMethod),
        (("shop.ship", {"no": 1}), BadParams),
    ]:
        with pytest.raises(error):
            enqueue(*arguments)
    with pytest.raises(LookupError):
        current_job()


def test_inline_works_inside_a_running_event_loop(jobs, monkeypatch):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "inline:")

    async def request():
        enqueue("shop.bill", [11])

    asyncio.run(request())
    assert jobs.seen == [11]


def test_a_process_whose_first_call_came_without_credentials_works_once_they_are_there(monkeypatch):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", URL)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(AccessDenied, match="no AWS credentials"):
        enqueue("a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "here")
    monkeypatch.setattr(sqs.Queue, "send", lambda *_, **__: {})
    assert delivery._queue(URL, 5.0, os.getpid())._working._request_signer._credentials.access_key == "here"


def test_a_forked_process_gets_a_client_of_its_own():
    delivery._queue.cache_clear()
    assert delivery._queue(URL, 5, 1) is delivery._queue(URL, 5, 1)
    assert delivery._queue(URL, 5, 1) is not delivery._queue(URL, 5, 2)
    delivery._queue.cache_clear()


def test_a_single_job_that_sqs_could_not_take_is_sent_again(queue):
    queue.answers = [{0: Refusal("InternalError", sender_fault=False, message="m")}, QueueError("reset")]
    assert enqueue("a") == decode(queue.bodies[0][0]).id
    assert len(queue.bodies) == 1


@pytest.mark.parametrize("no", [QueueNotFound("gone"), AccessDenied("no")])
def test_where_sqs_says_no_outright_nothing_was_sent_and_nothing_is_tried_again(queue, no):
    queue.answers = [no]
    with pytest.raises(EnqueueError) as caught:
        enqueue_many([("a", None)] * 3)
    assert (caught.value.not_sent, caught.value.unknown) == ([0, 1, 2], [])
    queue.answers = [no]
    with pytest.raises(type(no)):
        enqueue("a")
    assert (queue.answers, queue.bodies) == ([], [])


def test_the_error_crosses_processes(queue):
    queue.answers = [RequestRefused("no")]
    with pytest.raises(EnqueueError) as caught:
        enqueue_many([("a", None)])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.not_sent, copy.ids) == (str(caught.value), [0], caught.value.ids)


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "301"])
def test_a_wrong_budget_is_named(queue, monkeypatch, given):
    monkeypatch.setenv("JOBRUNNER_ENQUEUE_SECONDS", given)
    with pytest.raises(SettingsError, match=f"JOBRUNNER_ENQUEUE_SECONDS is '{given}'"):
        enqueue("a")


def test_a_web_request_does_not_hang_on_an_sqs_that_does(monkeypatch):
    """One budget for all tries; here of a second, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("JOBRUNNER_QUEUE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/0/jobs")
        monkeypatch.setenv("JOBRUNNER_ENQUEUE_SECONDS", "1")
        asked = []
        monkeypatch.setattr(delivery.time, "sleep", asked.append)
        with pytest.raises(QueueError, match="did not answer"):
            enqueue("a")
    assert len(asked) <= 1, "a third try would not fit"


def test_all_batches_of_a_call_share_its_budget_from_the_first_that_fails(monkeypatch, queue):
    """A hundred batches that hang, eight at a time, would hold a request for a minute."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setenv("JOBRUNNER_ENQUEUE_SECONDS", "5")

    def send(bodies, **_):
        nonlocal now
        now += 2.0
        if now > 20:
            raise QueueError("did not answer")
        queue.bodies += bodies
        return {}

    queue.send = send
    with pytest.raises(EnqueueError) as caught:
        enqueue_many([("a", None)] * 1000)
    assert len(queue.bodies) == len(caught.value.sent) == 100, "what goes well may take its time"
    assert (len(caught.value.unknown), len(caught.value.not_sent), now) == (10, 890, 24.0)


def test_many_are_sent_at_the_exit_too(queue, monkeypatch):
    """Where no thread can be started any more, one after another."""

    class Gone:
        def __init__(self, *_, **__):
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(delivery, "ThreadPoolExecutor", Gone)
    assert len(enqueue_many([("a", None)] * 25)) == len(queue.bodies) == 25


def test_inline_jobs_share_one_lasting_loop(jobs, monkeypatch):
    """An engine or a client that lives on the loop works from one request to the next."""
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "inline:")
    loops = []

    async def bill(_):
        loops.append(asyncio.get_running_loop())

    monkeypatch.setitem(inline._catalog("jobs").jobs, "shop.bill", catalog.Job.of("shop.bill", bill))
    enqueue("shop.bill", [1])
    enqueue("shop.bill", [2])
    assert loops[0] is loops[1]
    assert not loops[0].is_closed()


def test_inline_refuses_what_a_worker_would_refuse(jobs, monkeypatch):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", "inline:")
    monkeypatch.setitem(
        inline._catalog("jobs").jobs, "shop.bill", catalog.Job.of("shop.bill", lambda: iter(n for n in []))
    )
    with pytest.raises(RuntimeError, match="returned a generator"):
        enqueue("shop.bill")


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"delay_seconds": 1.5}, "delay_seconds is 1.5: give whole seconds"),
        ({"delay_seconds": "60"}, "delay_seconds is '60'"),
        ({"delay_seconds": True}, "delay_seconds is True"),
        ({"delay_seconds": timedelta(hours=1)}, "delay_seconds is 3600"),
        ({"group": 7}, "group is 7: give a text"),
        ({"group": "with space"}, "visible ASCII"),
    ],
)
@pytest.mark.parametrize("where", [URL, "inline:"])
def test_a_callers_mistake_is_named_before_anything_is_sent(queue, monkeypatch, named, says, where):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", where)
    for send in (partial(enqueue, "a"), partial(enqueue_many, [("a", None)])):
        with pytest.raises(SettingsError, match=re.escape(says)):
            send(**named)
    assert queue.bodies == []


@pytest.mark.parametrize(
    ("send", "error", "says"),
    [
        (lambda: enqueue("a", (1,)), MalformedMessage, "params is (1,): give a dict"),
        (lambda: enqueue("a", b"x"), MalformedMessage, "params is b'x'"),
        (lambda: enqueue("a", context="x"), MalformedMessage, "context is 'x': give a dict"),
        (lambda: enqueue("a", id=7), MalformedMessage, "id is 7: give a text of 1 to 200"),
        (lambda: enqueue("a", id=""), MalformedMessage, "id is ''"),
        (lambda: enqueue("a", queue_url=7), SettingsError, "queue_url is 7: give a queue's URL"),
        (lambda: enqueue("a", delay_seconds=-1), SettingsError, "leave it out"),
        (lambda: enqueue("a", at=datetime.max.replace(tzinfo=UTC)), SettingsError, "an end of the calendar"),
        (lambda: enqueue_many(7), SettingsError, "calls is 7: give pairs"),
        (lambda: enqueue_many(None), SettingsError, "calls is None"),
        (lambda: enqueue_many([("a", None), ("a", "x")]), MalformedMessage, "calls[1]: params is 'x'"),
    ],
)
@pytest.mark.parametrize("where", [URL, "inline:"])
def test_what_is_no_call_is_named_with_its_cure(queue, monkeypatch, send, error, says, where):
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", where)
    with pytest.raises(error, match=re.escape(says)):
        send()
    assert queue.bodies == []


def test_an_id_may_be_a_uuid(queue):
    key = uuid.uuid4()
    assert enqueue("a", id=key) == str(key)


def test_a_delay_may_be_a_timedelta_and_is_never_early(queue):
    enqueue("a", delay_seconds=timedelta(seconds=59, milliseconds=1))
    assert queue.bodies[0][1] == 60


@pytest.mark.parametrize("calls", [["a.b"], [("a",)], [("a", {}, 1)], [None]])
def test_calls_that_are_no_pairs_are_named(queue, calls):
    with pytest.raises(SettingsError, match=r"calls\[0\] is"):
        enqueue_many(calls)


def test_after_an_error_the_same_id_can_be_tried_again(queue):
    queue.answers = [QueueError("answer lost")] * 3
    with pytest.raises(QueueError) as caught:
        enqueue("a")
    assert enqueue("a", id=caught.value.job_id) == caught.value.job_id
    assert decode(queue.bodies[0][0]).id == caught.value.job_id
