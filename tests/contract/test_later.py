"""Jobs for later than 15 minutes: on moto's EventBridge Scheduler, which fires none, and MiniStack's, which does."""

import contextlib
import json
import os
import socket
import time
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import boto3
import pages
import pytest
from botocore.exceptions import ClientError
from servers import ROOT, client_of, wait_for
from workers import Worker

from jobrunner import (
    AccessDenied,
    EnqueueError,
    MalformedMessage,
    QueueError,
    RequestRefused,
    SettingsError,
    cancel,
    enqueue,
    enqueue_many,
)
from jobrunner.crons.later_ticker import LaterTicker
from jobrunner.message import Call, decode, encode
from jobrunner.operate import check
from jobrunner.operate.queues import operated
from jobrunner.queue.endpoint import Endpoint
from jobrunner.queue.schedules import Place, Schedules, rounded_up
from jobrunner.sending import later
from jobrunner.testing import enqueued

GROUP = f"later.of-a-test-{os.getpid()}"  # one server may be there for several processes
ROLE = "arn:aws:iam::123456789012:role/crons"


@pytest.fixture(params=["moto", "ministack"])
def kind(request):
    """ElasticMQ has no Scheduler."""
    return request.param


@pytest.fixture
def url(server_url, make_queue, monkeypatch):
    """A queue, with a place for what is to come later."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", server_url)
    monkeypatch.setenv("JOBRUNNER_LATER_GROUP", GROUP)
    monkeypatch.setenv("JOBRUNNER_LATER_ROLE_ARN", ROLE)
    monkeypatch.setenv("JOBRUNNER_LATER_DEAD_LETTER_ARN", "arn:aws:sqs:us-east-1:123456789012:dead")
    url = make_queue(server_url)
    monkeypatch.setenv("JOBRUNNER_QUEUE_URL", url)
    client = scheduler()
    with contextlib.suppress(client.exceptions.ConflictException):
        client.create_schedule_group(Name=GROUP)
    yield url
    later._made.cache_clear()
    for page in client.get_paginator("list_schedules").paginate(GroupName=GROUP):
        for schedule in page["Schedules"]:
            client.delete_schedule(GroupName=GROUP, Name=schedule["Name"])


def scheduler():
    return boto3.client("scheduler")


def in_three_days():
    return datetime.now(UTC) + timedelta(days=3)


def received(url):
    host = "/".join(url.split("/")[:3])
    return (
        client_of(host)
        .receive_message(QueueUrl=url, AttributeNames=["All"], MaxNumberOfMessages=10)
        .get("Messages", [])
    )


def test_a_job_in_three_days_is_a_schedule_by_its_id_that_can_be_cancelled_once(url):
    at = in_three_days()
    job_id = enqueue("orders.remind", {"number": 7}, at=at)
    found = scheduler().get_schedule(GroupName=GROUP, Name=job_id)
    assert found["ScheduleExpression"] == f"at({rounded_up(at):%Y-%m-%dT%H:%M:%S})"
    assert found["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert found["ActionAfterCompletion"] == "DELETE"
    assert found["Target"]["Arn"].endswith(f":{url.rpartition('/')[2]}")
    assert found["Target"]["DeadLetterConfig"]["Arn"].endswith(":dead")
    body = decode(found["Target"]["Input"])
    assert (body.method, body.params, body.id) == ("orders.remind", {"number": 7}, job_id)
    assert datetime.fromisoformat(body.scheduled_at) == at
    assert received(url) == []
    assert (cancel(job_id), cancel(job_id), cancel("not a name of one")) == (True, False, False)


def test_with_a_message_group_it_is_a_call_of_sqs(url):
    job_id = enqueue("orders.remind", at=in_three_days(), group="tenant-7", id="mine.1")
    target = scheduler().get_schedule(GroupName=GROUP, Name="mine.1")["Target"]
    assert job_id == "mine.1"
    assert target["Arn"] == "arn:aws:scheduler:::aws-sdk:sqs:sendMessage"
    call = json.loads(target["Input"])
    assert (call["QueueUrl"], call["MessageGroupId"]) == (url, "tenant-7")
    assert decode(call["MessageBody"]).method == "orders.remind"


def test_made_again_under_the_same_id_it_is_made_once(url):
    at = in_three_days()
    for number in range(2):
        again = enqueue("orders.remind", at=at, id="once", context={"request": number})
        assert again == "once"
    assert len(scheduler().list_schedules(GroupName=GROUP)["Schedules"]) == 1


@pytest.mark.parametrize("other", [("orders.remind", timedelta(days=4)), ("orders.close", timedelta(days=3))])
def test_another_job_under_an_id_that_waits_is_refused(url, other):
    """A reminder that moves would stay where it was, without a word."""
    now = datetime.now(UTC)
    enqueue("orders.remind", at=now + timedelta(days=3), id="reminder")
    with pytest.raises(RequestRefused, match=r"another job waits under the id 'reminder', for .*cancel\('reminder'\)"):
        enqueue(other[0], at=now + other[1], id="reminder")
    cancel("reminder")
    assert enqueue(other[0], at=now + other[1], id="reminder") == "reminder"


@pytest.mark.parametrize("seconds", [-3600, 0, 30, 899])
def test_what_is_near_or_past_is_a_message_at_once(url, seconds):
    with enqueued() as jobs:
        enqueue("a", at=datetime.now(timezone(timedelta(hours=5))) + timedelta(seconds=seconds))
    assert 0 <= max(seconds, 0) - jobs[0].delay_seconds + 1 <= 1
    assert jobs[0].at is not None, "what was asked for"


def test_what_is_wrong_is_named_before_anything_is_made(url):
    wrong = [
        ({"at": datetime(2030, 1, 1)}, SettingsError, "give a datetime with its zone"),
        ({"at": "tomorrow"}, SettingsError, "at is 'tomorrow'"),
        ({"at": in_three_days(), "delay_seconds": 5}, SettingsError, "give one of them"),
        ({"at": in_three_days(), "id": "a b"}, SettingsError, "1 to 64 letters"),
        ({"at": in_three_days(), "params": ["x" * 262_144]}, MalformedMessage, "EventBridge Scheduler takes 262,144"),
    ]
    for how, error, says in wrong:
        with pytest.raises(error, match=says):
            enqueue("a", **how)
    with pytest.raises(SettingsError, match="give 100 at most"):
        enqueue_many([("a", None)] * 101, at=in_three_days())
    with pytest.raises(MalformedMessage, match="Scheduler takes 262,144"):  # as the call of SQS that it is sent in
        enqueue("a", ['"' * 80_000], at=in_three_days(), group="tenant-7")
    with pytest.raises(MalformedMessage, match="Scheduler takes 262,144"):
        enqueue_many([("a", None), ("a", None), ("a", ["x" * 262_144])], at=in_three_days())
    assert scheduler().list_schedules(GroupName=GROUP)["Schedules"] == []


def test_many_are_made_one_by_one(url):
    ids = enqueue_many([("a", [number]) for number in range(5)], at=in_three_days())
    assert {each["Name"] for each in scheduler().list_schedules(GroupName=GROUP)["Schedules"]} == set(ids)


def test_of_many_it_is_said_which_were_made(url, monkeypatch):
    made = []

    def schedule(_url, job_id, *_, **__):
        if len(made) == 2:
            raise RequestRefused("quota")
        made.append(job_id)

    monkeypatch.setattr(later, "schedule", schedule)
    with pytest.raises(EnqueueError, match="of 5 jobs 3 were not sent.*quota") as caught:
        enqueue_many([("a", [number]) for number in range(5)], at=in_three_days())
    assert (caught.value.sent, caught.value.not_sent, caught.value.unknown) == ([0, 1], [2, 3, 4], [])


@pytest.mark.parametrize("kind", ["moto"], indirect=True)
def test_all_are_listed_a_page_at_a_time(url):
    """MiniStack gives the first hundred, and does not say that there are more."""
    at = in_three_days()
    ids = {*enqueue_many([("a", [number]) for number in range(100)], at=at), enqueue("a", at=at)}
    place = Place(group=GROUP, role_arn=ROLE, dead_letter_arn=None)
    assert set(Schedules(place=place, queue_url=url, read_seconds=5).ids()) == ids


def test_a_cancel_whose_answer_is_lost_has_cancelled(url, monkeypatch):
    job_id = enqueue("a", at=in_three_days())
    delete = Schedules.delete
    tries = []

    def lose_the_first_answer(self, name):
        there = delete(self, name)
        tries.append(there)
        if len(tries) == 1:
            raise QueueError("the answer was lost")
        return there

    monkeypatch.setattr(Schedules, "delete", lose_the_first_answer)
    assert cancel(job_id) is True
    assert tries == [True, False]


def test_a_group_that_is_not_there_is_said(url, monkeypatch):
    """By AWS's words: moto ends with an error of its own there, and MiniStack makes the group."""

    def refuse(**_):
        error = {"Code": "ResourceNotFoundException", "Message": f"Schedule group {GROUP} does not exist."}
        raise ClientError({"Error": error}, "DeleteSchedule")

    client = SimpleNamespace(create_schedule=refuse, get_schedule=refuse, delete_schedule=refuse)
    monkeypatch.setattr(Endpoint, "scheduler", lambda *_, **__: client)
    for ask in (lambda: enqueue("a", at=in_three_days()), lambda: cancel("some-id")):
        with pytest.raises(RequestRefused, match=f"no schedule group '{GROUP}'"):
            ask()
    (found,) = check._later(url)
    assert (found.level, GROUP in found.value) == ("warn", True)


def test_without_its_variables_or_a_scheduler_the_cure_is_said(url, monkeypatch):
    monkeypatch.delenv("JOBRUNNER_LATER_GROUP")
    with pytest.raises(SettingsError, match="set JOBRUNNER_LATER_GROUP"):
        enqueue("a", at=in_three_days())
    monkeypatch.setenv("JOBRUNNER_LATER_GROUP", GROUP)
    monkeypatch.delenv("AWS_ENDPOINT_URL_SCHEDULER")
    later._made.cache_clear()
    with pytest.raises(SettingsError, match="there is no EventBridge Scheduler beside"):
        enqueue("a", at=in_three_days())


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        (
            "ResourceNotFoundException",
            RequestRefused,
            "no schedule group 'later.of-a-test.*': deploy/aws/jobrunner.yaml makes",
        ),
        ("AccessDeniedException", AccessDenied, "scheduler:CreateSchedule.*iam:PassRole on " + ROLE),
        ("ValidationException", RequestRefused, "ValidationException"),
        ("ThrottlingException", QueueError, "ThrottlingException"),
    ],
)
def test_what_aws_says_is_told_apart(url, code, error, says):
    place = Place(group=GROUP, role_arn=ROLE, dead_letter_arn=None)
    schedules = Schedules(place=place, queue_url=url, read_seconds=5)

    def refuse(**_):
        raise ClientError({"Error": {"Code": code, "Message": "as AWS says it"}}, "CreateSchedule")

    schedules._client = SimpleNamespace(create_schedule=refuse)
    with pytest.raises(error, match=says) as caught:
        schedules.create("a", "{}", in_three_days(), group=None)
    assert isinstance(caught.value, RequestRefused) == (error is RequestRefused)


def test_a_scheduler_that_does_not_answer_holds_nobody_for_long(url, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", "http://127.0.0.1:1")
    later._made.cache_clear()
    began = time.monotonic()
    with pytest.raises(QueueError, match="did not answer") as caught:
        enqueue("a", at=in_three_days(), id="again")
    assert caught.value.job_id == "again"
    assert time.monotonic() - began < 5
    later._made.cache_clear()


def test_a_scheduler_that_hangs_holds_a_call_for_its_budget(url, monkeypatch):
    """A hundred jobs would else be a hundred times that."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("JOBRUNNER_ENQUEUE_SECONDS", "1")
        later._made.cache_clear()
        with pytest.raises(EnqueueError) as caught:
            enqueue_many([("a", None)] * 100, at=in_three_days())
        later._made.cache_clear()
    assert len(caught.value.not_sent) > 90
    assert caught.value.sent == []


def test_inline_a_later_job_does_not_run(url):
    assert enqueue("not.here", at=in_three_days(), queue_url="inline:")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ministack"], indirect=True)
def test_a_scheduler_that_fires_sends_the_job_not_too_early_and_forgets_it(url):
    """The only one here that does; not with a message group, since it drops what calls SQS itself."""
    schedules = Schedules(place=Place(group=GROUP, role_arn=ROLE, dead_letter_arn=None), queue_url=url, read_seconds=5)
    at = datetime.now(UTC) + timedelta(seconds=1)
    schedules.create("fired", encode(Call(method="a", id="fired")), at, group=None)
    (message,) = wait_for(lambda: received(url), 120, "the schedule to fire")
    assert decode(message["Body"]).id == "fired"
    assert datetime.now(UTC) >= rounded_up(at)
    wait_for(lambda: schedules.get("fired") is None)
    assert cancel("fired") is False


@pytest.mark.parametrize("kind", ["moto"], indirect=True)
def test_the_laptops_ticker_fires_what_is_due_once(url):
    place = Place(group=GROUP, role_arn=ROLE, dead_letter_arn=None)
    schedules = Schedules(place=place, queue_url=url, read_seconds=5)
    past, future = datetime.now(UTC) - timedelta(minutes=2), in_three_days()
    schedules.create("plain", encode(Call(method="a", id="plain")), past, group=None)
    schedules.create("grouped", encode(Call(method="b", id="grouped")), past, group="g")
    schedules.create("waits", encode(Call(method="c")), future, group=None)
    ticker = LaterTicker(schedules=schedules, queue_urls=[url])
    ticker.tick()
    ticker.tick()
    fired = {decode(message["Body"]).id: message["Attributes"].get("MessageGroupId") for message in received(url)}
    assert fired == {"grouped": "g", "plain": None}
    assert list(schedules.ids()) == ["waits"]


@pytest.mark.parametrize("kind", ["moto"], indirect=True)
def test_the_laptops_ticker_takes_an_id_that_was_given_anew_for_what_it_is_now(url):
    place = Place(group=GROUP, role_arn=ROLE, dead_letter_arn=None)
    schedules = Schedules(place=place, queue_url=url, read_seconds=5)
    ticker = LaterTicker(schedules=schedules, queue_urls=[url])
    soon = datetime.now(UTC) + timedelta(minutes=2)
    schedules.create("moved", encode(Call(method="early", id="moved")), soon, group=None)
    ticker.tick()
    schedules.delete("moved")
    schedules.create("moved", encode(Call(method="late", id="moved")), datetime.now(UTC) - timedelta(1), group=None)
    ticker.tick()
    (message,) = received(url)
    assert decode(message["Body"]).method == "late"


@pytest.mark.parametrize("kind", ["moto"], indirect=True)
def test_the_laptops_ticker_goes_on_beside_a_job_for_a_queue_that_is_not_here(url, capsys):
    place = Place(group=GROUP, role_arn=ROLE, dead_letter_arn=None)
    past = datetime.now(UTC) - timedelta(minutes=2)
    elsewhere = Schedules(place=place, queue_url=f"{url}-of-another", read_seconds=5)
    elsewhere.create("anothers", encode(Call(method="a")), past, group="g")
    schedules = Schedules(place=place, queue_url=url, read_seconds=5)
    schedules.create("ours", encode(Call(method="a", id="ours")), past, group=None)
    ticker = LaterTicker(schedules=schedules, queue_urls=[url])
    ticker.tick()
    ticker.tick()
    assert [decode(message["Body"]).id for message in received(url)] == ["ours"]
    assert capsys.readouterr().err.count("which is not here") == 1


@pytest.mark.parametrize("kind", ["moto"], indirect=True)
def test_crons_run_fires_what_an_emulator_keeps(url, elasticmq_url, make_queue, tmp_path, monkeypatch):
    """As in compose: the queue on ElasticMQ, the schedules on moto, and an app without crons."""
    queue_url = make_queue(elasticmq_url)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("def a(): pass\n")
    (tmp_path / "jobs" / "crons.toml").touch()
    monkeypatch.setenv("JOBRUNNER_LATER_GROUP", "made-by-crons-run")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", elasticmq_url)
    program = Worker("crons", "run", "--app-dir", tmp_path, "--queue-url", queue_url)
    try:
        place = Place(group="made-by-crons-run", role_arn=ROLE, dead_letter_arn=None)
        schedules = Schedules(place=place, queue_url=queue_url, read_seconds=5)
        wait_for(lambda: is_there(schedules))
        schedules.create("due", encode(Call(method="a", id="due")), datetime.now(UTC) - timedelta(1), group="g")
        (message,) = wait_for(lambda: received(queue_url), 60, "the job")
        assert decode(message["Body"]).id == "due"
        assert program.process.poll() is None
    finally:
        program.kill()


def is_there(schedules):
    with contextlib.suppress(QueueError):
        return schedules.get("nothing") is None


def test_what_scheduler_gave_up_is_sent_again_as_it_was_meant(url):
    """With a message group its dead letter is the call of SQS that failed."""
    host = "/".join(url.split("/")[:3])
    body = encode(Call(method="orders.remind", id="mine"))
    call = json.dumps({"QueueUrl": url, "MessageBody": body, "MessageGroupId": "tenant-7"})
    client_of(host).send_message(QueueUrl=url, MessageBody=call)
    (letter,) = operated(url).receive(hidden_seconds=0, wait_seconds=0)
    assert (letter.body, letter.group) == (body, "tenant-7")


def test_never_early():
    minute = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    assert rounded_up(minute) == minute
    for more in (timedelta(microseconds=1), timedelta(seconds=59)):
        assert rounded_up(minute + more) == minute + timedelta(minutes=1)
    there = datetime(2026, 11, 24, 14, 30, 1, tzinfo=timezone(timedelta(hours=5)))
    assert f"{rounded_up(there):%H:%M}" == "09:31", "Scheduler is told the time of UTC"


def test_the_page_shows_code_that_works(url, monkeypatch):
    (code,) = pages.files((ROOT / "docs" / "later.md").read_text()).values()
    shop = {}
    exec(code, shop)
    job_id = shop["begin"]("ada")
    assert shop["convert"](job_id) is True
    assert shop["convert"](job_id) is False


def test_check_judges_the_place_for_later(url, monkeypatch):
    (found,) = check._later(url)
    assert (found.level, found.value.startswith(f"{GROUP}: ")) == ("ok", True)
    monkeypatch.delenv("JOBRUNNER_LATER_DEAD_LETTER_ARN")
    (found,) = check._later(url)
    assert (found.level, "without dead letters" in found.value) == ("warn", True)
    monkeypatch.setenv("JOBRUNNER_LATER_ROLE_ARN", "")
    (found,) = check._later(url)
    assert "JOBRUNNER_LATER_ROLE_ARN" in found.value
    monkeypatch.delenv("JOBRUNNER_LATER_GROUP")
    assert list(check._later(url)) == [], "who does not use it need not hear of it"
