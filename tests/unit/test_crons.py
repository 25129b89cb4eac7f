"""The schedule file, its words, its reconciliation with EventBridge Scheduler, and its stand-in on a laptop."""

import importlib
import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from click.testing import CliRunner
from moto import mock_aws
from servers import ROOT

from jobrunner.app.catalog import Catalog, Job
from jobrunner.cli import main
from jobrunner.crons import describe, file, ticker, warnings
from jobrunner.crons import scheduler as scheduler_room
from jobrunner.crons.expression import parse
from jobrunner.crons.scheduler import PLACEHOLDER, Place, Scheduler, schedule_name
from jobrunner.crons.words import explain
from jobrunner.errors import AccessDenied, ScheduleError
from jobrunner.message import decode
from jobrunner.queue.endpoint import queue_arn

NOW = datetime(2026, 11, 23, 9, 45, tzinfo=UTC)


def letter(to="all"):
    """Stand for a job."""


CATALOG = Catalog(module="jobs", jobs={"mail.letter": Job.of("mail.letter", letter)}, left_out={})

GOOD = """
[weekly]
method = "mail.letter"
schedule = "cron(0 9 ? * 2#1 *)"
timezone = "America/New_York"
params = { to = "members" }
max_age_seconds = 7200
description = "On Mondays"

[often]
method = "mail.letter"
schedule = "rate(5 minutes)"

[off]
method = "mail.letter"
schedule = "at(2027-01-01T09:00:00)"
enabled = false
"""


@pytest.fixture
def crons(tmp_path):
    def crons(text=GOOD):
        path = tmp_path / "crons.toml"
        path.write_text(text)
        return file.load(path, CATALOG)

    return crons


def test_a_good_file_is_read_whole(crons):
    weekly, often, off = crons()
    assert (weekly.name, weekly.method, weekly.params, weekly.max_age_seconds) == (
        "weekly",
        "mail.letter",
        {"to": "members"},
        7200,
    )
    assert [cron.enabled for cron in (weekly, often, off)] == [True, True, False]
    call = decode(json.dumps({"method": "mail.letter", "id": "weekly@2026-12-07T14:00:00Z"}))
    assert weekly.call("2026-12-07T14:00:00Z").id == call.id


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('method = "mail.letter"\nschedule = "rate', 'schedule = "rate', ":10 [often]: method is missing"),
        ("max_age_seconds = 7200", "max_age = 7200", ":2 [weekly]: unknown key 'max_age'; known: method"),
        ("max_age_seconds = 7200", "max_age_seconds = true", "has the wrong type"),
        ("max_age_seconds = 7200", "max_age_seconds = 0", "at least 1"),
        ('to = "members"', 'whom = "x"', "got an unexpected keyword argument 'whom'"),
        ("mail.letter", "mail.lettre", "near misses: mail.letter"),
        ("America/New_York", "America/Gotham", "not an IANA name"),
        ("rate(5 minutes)", "rate(5 minute)", "[often]: 'rate(5 minute)' is not rate(1 minute)"),
        ("[off]", "[off", "not TOML"),
        ("[off]", '["o f"]', "letters, digits"),
        ("enabled = false", "enabled = 0", "wrong type"),
        ("[weekly]", "loose = 1\n[weekly]", ":2 [loose]: 'loose' is not a table"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_table_and_value(crons, old, new, says):
    with pytest.raises(ScheduleError) as caught:
        crons(GOOD.replace(old, new, 1))
    assert says in str(caught.value)
    assert "crons.toml" in str(caught.value)


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    path = tmp_path / "crons.toml"
    path.write_bytes(b'[a]\nmethod = "gr\xfc\xdfe"')
    with pytest.raises(ScheduleError, match="cannot be read: 'utf-8'"):
        file.load(path, CATALOG)
    with pytest.raises(ScheduleError, match="cannot be read"):
        file.load(tmp_path, CATALOG)
    with pytest.raises(ScheduleError, match="no .*nowhere.toml: write one table per cron there"):
        file.load(tmp_path / "nowhere.toml", CATALOG)


def test_the_file_is_found_beside_a_module_and_in_a_package_with_or_without_its_init(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("cron_package", "cron_namespace"):
        (tmp_path / name).mkdir()
    (tmp_path / "cron_package" / "__init__.py").touch()
    (tmp_path / "cron_module.py").touch()
    for name, folder in (("package", "cron_package"), ("namespace", "cron_namespace"), ("module", ".")):
        importlib.import_module(f"cron_{name}")
        assert file.beside(f"cron_{name}", tmp_path) == tmp_path / folder / "crons.toml"
    assert file.beside("cron_nowhere", tmp_path) == tmp_path / "crons.toml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cron(0 9 ? * 2#1 *)", "at 09:00 on the first Monday of the month, UTC"),
        ("cron(0 18 ? * MON-FRI *)", "at 18:00 Monday to Friday, UTC"),
        ("cron(*/15 * * * ? *)", "every 15 minutes every day, UTC"),
        ("cron(* * * * ? *)", "every minute every day, UTC"),
        ("cron(0 8,12 ? * SAT,SUN *)", "at 08:00 and 12:00 every Sunday and Saturday, UTC"),
        ("cron(5 * * * ? *)", "at :05 of every hour every day, UTC"),
        ("cron(0/10 9-17 * * ? *)", "every 10 minutes in the hours 9 to 17 every day, UTC"),
        ("cron(0 0 LW * ? *)", "at 00:00 on the last weekday of the month, UTC"),
        (
            "cron(0 0 15W 1,7 ? 2027)",
            "at 00:00 on the weekday nearest to day 15 of the month in January and July in 2027, UTC",
        ),
        ("cron(15 10 ? * 6L *)", "at 10:15 on the last Friday of the month, UTC"),
        ("rate(1 hour)", "every hour"),
        ("rate(5 minutes)", "every 5 minutes"),
        ("at(2027-01-01T09:00:00)", "once, at 09:00:00 on 1 January 2027, UTC"),
    ],
)
def test_schedules_are_said_in_words(text, words):
    assert explain(parse(text, ZoneInfo("UTC"))) == words


class Laptop:
    """A clock that only sleep moves, and that may sleep longer than asked."""

    def __init__(self, hours):
        self.now_at = NOW + timedelta(seconds=7)
        self.end = NOW + timedelta(hours=hours)
        self.lid_closed_at = None

    def now(self):
        return self.now_at

    def sleep(self, seconds):
        self.now_at += timedelta(seconds=seconds)
        if self.lid_closed_at and self.now_at > self.lid_closed_at:
            self.now_at += timedelta(hours=3)
            self.lid_closed_at = None
        if self.now_at > self.end:
            raise StopIteration


def test_the_ticker_fires_each_tick_once_on_its_second(crons):
    laptop, fired = Laptop(hours=6), []
    with pytest.raises(StopIteration):
        ticker.run(
            crons(GOOD.replace("0 9 ? * 2#1 *", "30 * * * ? *")),
            lambda cron, at: fired.append((cron.name, at, laptop.now())),
            now=laptop.now,
            sleep=laptop.sleep,
        )
    assert all(timedelta(0) <= actual - at < timedelta(seconds=1) for _, at, actual in fired)
    assert [at for name, at, _ in fired if name == "weekly"] == [NOW.replace(minute=30, hour=10 + n) for n in range(6)]
    assert len({at for name, at, _ in fired if name == "often"}) == sum(name == "often" for name, _, _ in fired) == 71


def test_after_the_laptop_slept_there_is_no_burst(crons):
    laptop, fired = Laptop(hours=5), []
    laptop.lid_closed_at = NOW + timedelta(hours=1)
    with pytest.raises(StopIteration):
        ticker.run(crons(), lambda _, at: fired.append((at, laptop.now())), now=laptop.now, sleep=laptop.sleep)
    assert all(actual - at < timedelta(seconds=31) for at, actual in fired)
    assert 20 <= len(fired) <= 25


PLACE = Place(
    app="shop",
    environment="test",
    queue_arn="arn:aws:sqs:eu-west-1:123456789012:jobs",
    role_arn="arn:aws:iam::123456789012:role/crons",
)


class Recorder:
    """Counts the requests of a scheduler, by operation; may fail at a chosen one."""

    def __init__(self, scheduler):
        self.calls = []
        self.fail_at = None
        self.error = ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "CreateSchedule")
        scheduler._client.meta.events.register("before-call.scheduler.*", self._note)

    def _note(self, model, **_):
        self.calls.append(model.name)
        if self.fail_at and self.calls.count("CreateSchedule") == self.fail_at:
            raise self.error

    def writes(self):
        found = [name for name in self.calls if not name.startswith(("Get", "List"))]
        self.calls.clear()
        return found


@pytest.fixture
def scheduler():
    with mock_aws():
        yield Scheduler(place=PLACE, client=boto3.client("scheduler", region_name="eu-west-1"))


@pytest.fixture
def recorder(scheduler):
    return Recorder(scheduler)


def apply(scheduler, crons, *, prune=False):
    changes = scheduler.plan(crons, prune=prune)
    scheduler.apply(changes)
    return [(change.kind, change.name) for change in changes]


def test_apply_again_change_one_and_prune_write_only_what_differs(scheduler, recorder, crons):
    apply(scheduler, crons())
    assert recorder.writes() == ["CreateScheduleGroup", "CreateSchedule", "CreateSchedule", "CreateSchedule"]
    assert apply(scheduler, crons()) == []
    assert recorder.writes() == []
    changed = crons(GOOD.replace("0 9 ?", "0 10 ?"))
    (change,) = scheduler.plan(changed, prune=False)
    assert change.lines == ("ScheduleExpression: 'cron(0 9 ? * 2#1 *)' -> 'cron(0 10 ? * 2#1 *)'",)
    apply(scheduler, changed)
    assert recorder.writes() == ["UpdateSchedule"]
    fewer = [cron for cron in changed if cron.name != "off"]
    assert apply(scheduler, fewer) == [("extra", schedule_name("off"))]
    assert recorder.writes() == []
    assert apply(scheduler, fewer, prune=True) == [("delete", schedule_name("off"))]
    assert recorder.writes() == ["DeleteSchedule"]
    assert apply(scheduler, fewer, prune=True) == []


def test_what_scheduler_is_sent_is_plain_and_its_answer_is_no_difference(scheduler, crons):
    """Whether AWS takes wrapped ranges, small letters and linked zones, and gives them back so, is not known."""
    wrapped = GOOD.replace("0 9 ? * 2#1 *", "0 22-2 ? jan,mar-may fri-mon *").replace("America/New_York", "US/Eastern")
    apply(scheduler, crons(wrapped))
    made = scheduler._client.get_schedule(GroupName="jobrunner-shop-test", Name=schedule_name("weekly"))
    assert made["ScheduleExpression"] == "cron(0 0,1,2,22,23 ? JAN,MAR-MAY 1,2,6,7 *)"
    assert made["ScheduleExpressionTimezone"] == "America/New_York"
    assert apply(scheduler, crons(wrapped)) == []


def test_what_is_made_sends_our_wire_format_with_its_time(scheduler, crons):
    apply(scheduler, crons())
    made = scheduler._client.get_schedule(GroupName="jobrunner-shop-test", Name=schedule_name("weekly"))
    target = made["Target"]
    body = json.loads(target["Input"])
    assert body["scheduled_at"] == PLACEHOLDER
    call = decode(target["Input"].replace(PLACEHOLDER, "2026-12-07T14:00:00Z"))
    assert (call.method, call.params, call.max_age_seconds) == ("mail.letter", {"to": "members"}, 7200)
    assert call.id == "weekly@2026-12-07T14:00:00Z"
    assert target["Arn"] == PLACE.queue_arn
    assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] == 7200
    assert made["FlexibleTimeWindow"] == {"Mode": "OFF"}


def test_a_group_that_is_not_ours_is_refused(scheduler, crons):
    scheduler._client.create_schedule_group(Name="jobrunner-shop-test", Tags=[{"Key": "owner", "Value": "somebody"}])
    with pytest.raises(ScheduleError, match="somebody else's"):
        scheduler.plan(crons(), prune=True)


def test_two_that_apply_at_the_same_time_agree(scheduler, recorder, crons):
    changes = scheduler.plan(crons(), prune=False)
    apply(scheduler, crons())
    scheduler.apply(changes)
    assert apply(scheduler, crons()) == []


def client_error(code, message):
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateSchedule")


@pytest.mark.parametrize(
    "error",
    [
        client_error("AccessDeniedException", "no"),
        client_error("ValidationException", "no"),
        EndpointConnectionError(endpoint_url="https://no.scheduler"),
    ],
)
def test_what_scheduler_refuses_or_does_not_answer_is_named_and_stops_no_other(scheduler, recorder, crons, error):
    recorder.fail_at, recorder.error = 1, error
    changes = scheduler.plan(crons(), prune=False)
    (failure,) = scheduler.apply(changes)
    assert failure.startswith(f"{changes[1].name}: create_schedule")
    assert "no" in failure
    recorder.fail_at = None
    assert [kind for kind, _ in apply(scheduler, crons())] == ["create"], "the others are there"
    assert apply(scheduler, crons()) == []


def test_listing_is_translated_too(scheduler, recorder, crons, monkeypatch):
    apply(scheduler, crons())

    def refuse(**_):
        raise client_error("AccessDeniedException", "not you")

    monkeypatch.setattr(scheduler._client, "list_schedules", refuse)
    with pytest.raises(AccessDenied, match="not you"):
        scheduler.plan(crons(), prune=False)


def test_a_conflict_is_fine_only_where_something_is_created(scheduler, recorder, crons, monkeypatch):
    apply(scheduler, crons())

    def conflict(**_):
        raise client_error("ConflictException", "being changed")

    monkeypatch.setattr(scheduler._client, "update_schedule", conflict)
    (failure,) = scheduler.apply(scheduler.plan(crons(GOOD.replace("0 9 ?", "0 10 ?")), prune=False))
    assert "being changed" in failure


def test_a_time_that_is_past_is_skipped_in_every_new_environment(scheduler, recorder, crons):
    past = GOOD.replace("cron(0 9 ? * 2#1 *)", "at(2020-01-01T09:00:00)")
    assert apply(scheduler, crons(past))[1] == ("past", schedule_name("weekly"))
    assert recorder.writes().count("CreateSchedule") == 2
    assert apply(scheduler, crons(past)) == [("past", schedule_name("weekly"))]


def test_a_role_whose_trust_aws_does_not_see_yet_is_waited_for(scheduler, recorder, crons, monkeypatch):
    message = "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
    recorder.error, recorder.fail_at = client_error("ValidationException", message), 1
    waited = []
    monkeypatch.setattr(scheduler_room.time, "sleep", waited.append)
    assert scheduler.apply(scheduler.plan(crons(), prune=False)) == []
    assert len(waited) == 1


def test_a_role_that_aws_never_sees_is_waited_for_once_for_all_crons(scheduler, recorder, crons, monkeypatch):
    message = "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
    now = 0.0

    def wait(seconds):
        nonlocal now
        now += seconds

    def refuse(**_):
        raise client_error("ValidationException", message)

    monkeypatch.setattr(scheduler_room.time, "monotonic", lambda: now)
    monkeypatch.setattr(scheduler_room.time, "sleep", wait)
    monkeypatch.setattr(scheduler._client, "create_schedule", refuse)
    plan = scheduler.plan(crons(), prune=False)
    assert len(scheduler.apply(plan)) == len(plan) - 1, "all but the group"
    assert now == 65


def test_a_login_that_has_expired_is_denied_access_here_too(scheduler, crons, monkeypatch):
    def old(**_):
        raise RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired.")

    monkeypatch.setattr(scheduler._client, "get_schedule_group", old)
    with pytest.raises(AccessDenied, match="aws login"):
        scheduler.plan(crons(), prune=False)


def test_a_description_is_cut_to_what_aws_takes(scheduler, crons):
    (cron, *_) = crons(GOOD.replace("On Mondays", "x" * 600))
    assert len(scheduler._wanted(cron)["Description"]) == 512


def test_a_tick_that_may_only_be_seconds_late_is_warned_of(crons):
    found = crons(GOOD.replace("7200", "60"))
    (line,) = [line for line in describe(found) if "warning" in line]
    assert "make max_age_seconds 120 or more" in line
    assert list(warnings(found)) == [line.strip()]


def test_names_and_arns():
    assert len(schedule_name("x" * 55)) == 64
    assert schedule_name("a.b") != schedule_name("a_b")
    assert (
        queue_arn("https://sqs.cn-north-1.amazonaws.com.cn/123/jobs", "cn-north-1")
        == "arn:aws-cn:sqs:cn-north-1:123:jobs"
    )


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_list_and_next_show_the_demos_crons():
    listed = run("crons", "list", "--app-dir", ROOT)
    assert "at 09:00 every Monday, America/New_York" in listed.output
    assert "minute_letter: newsletter.write  (disabled)" in listed.output
    lines = run("crons", "next", "-n", 3, "--app-dir", ROOT, "nightly_stumble").output.splitlines()
    assert len(lines) == 3
    times = [datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%MZ") for line in lines]
    assert times == sorted(times)
    missing = run("crons", "next", "--app-dir", ROOT, "nope")
    assert (missing.exit_code, "no cron 'nope'" in missing.output) == (2, True)
    nowhere = run("crons", "list", "--app-dir", ROOT, "--crons", "/no/file.toml")
    assert (nowhere.exit_code, "--crons" in nowhere.output) == (2, True)


@mock_aws
def test_plan_exits_2_while_there_are_differences():
    words = [
        "--app-dir",
        ROOT,
        "--app",
        "shop",
        "--env",
        "test",
        "--role-arn",
        PLACE.role_arn,
        "--queue-url",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
    ]
    planned = run("crons", "plan", *words)
    assert (planned.exit_code, planned.output.count("\n+ ")) == (2, 3), repr(planned.exception)
    assert "changes made: 4" in run("crons", "apply", *words).output
    again = run("crons", "plan", *words)
    assert (again.exit_code, again.output) == (0, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler_room.Scheduler, "apply", lambda *_: ["weekly: create_schedule: no"])
        failed = run("crons", "apply", *words)
    assert (failed.exit_code, "1 of 0 changes failed" in failed.output) == (2, True), failed.output
    too_long = run("crons", "plan", *words, "--env", "e" * 60)
    assert "over 64 characters" in too_long.output
    assert boto3.client("scheduler", region_name="eu-west-1").list_schedules()["Schedules"]


def test_one_cron_can_be_fired_now(monkeypatch, tmp_path):
    monkeypatch.setenv("DEMO_DATA", str(tmp_path))
    fired = run("crons", "run", "weekly_newsletter", "--app-dir", ROOT, "--queue-url", "inline:")
    assert "fired weekly_newsletter of 20" in fired.output, fired.output
    assert len(list((tmp_path / "newsletters").iterdir())) == 3


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({"AWS_PROFILE": "nope"}, 2, "nope"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/"}, 5, "no AWS credentials"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, 5, "no AWS credentials"),
    ],
    ids=["no such profile", "ECS does not answer", "none"],
)
def test_without_credentials_plan_says_so(monkeypatch, environment, code, words):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environment, "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    given = {"--app": "shop", "--env": "test", "--role-arn": PLACE.role_arn, "--app-dir": ROOT}
    url = "https://sqs.eu-west-1.amazonaws.com/1/q"
    result = run("crons", "plan", "--queue-url", url, *(word for pair in given.items() for word in pair))
    assert (result.exit_code, words in result.output) == (code, True), result.output
