"""deploy/aws/jobrunner.yaml: clean by cfn-lint, deployed into moto, and what works against what it made."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import boto3
import pytest
from servers import ROOT
from workers import PROGRAM, Worker

#: What moto's CloudFormation passes over; the linter judges these.
MOTO_LACKS = "AWS..(SQS..QueuePolicy|Scheduler..ScheduleGroup|CloudWatch..Alarm)"
pytestmark = pytest.mark.filterwarnings(f"ignore:Tried to parse {MOTO_LACKS} but:UserWarning")

TEMPLATE = ROOT / "deploy" / "aws" / "jobrunner.yaml"


@pytest.fixture
def stack(moto_url, monkeypatch):
    """Deploy the template; gives its outputs, with the environment of a shell that has AWS."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    cloudformation = boto3.client("cloudformation")
    app = f"shop-{uuid.uuid4().hex[:8]}"
    cloudformation.create_stack(
        StackName=app,
        TemplateBody=TEMPLATE.read_text(),
        Parameters=[{"ParameterKey": "App", "ParameterValue": app}],
        Capabilities=["CAPABILITY_IAM"],
    )
    (made,) = cloudformation.describe_stacks(StackName=app)["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return {"App": app, **{output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}}


def jobrunner(*words, code=0):
    done = subprocess.run([*PROGRAM, *words], check=False, capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == code, done
    return done.stdout


def test_the_template_is_clean():
    linter = Path(sys.executable).parent / "cfn-lint"
    subprocess.run([linter, TEMPLATE], check=True)


def test_check_crons_and_a_job_work_on_what_the_template_made(stack):
    url = stack["QueueUrl"]
    found = json.loads(jobrunner("check", "--queue-url", url, "--json"))
    assert {finding["level"] for finding in found} == {"ok"}, found
    place = ["--app", stack["App"], "--env", "production", "--queue-url", url, "--role-arn", stack["CronsRoleArn"]]
    place += ["--dead-letter-arn", stack["DeadLettersArn"]]
    assert "4 changes made" in jobrunner("crons", "apply", *place), "moto's CloudFormation makes no schedule groups"
    jobrunner("crons", "plan", *place)
    schedules = boto3.client("scheduler").list_schedules(GroupName=f"jobrunner-{stack['App']}-production")["Schedules"]
    assert len(schedules) == 3
    jobrunner("enqueue", "newsletter.write", "--queue-url", url)
    worker = Worker("consume", "--queue-url", url, "--stop-when-empty", "--wait-seconds", "1", cwd=ROOT)
    assert worker.end(30) == 0, str(worker)
    assert [line["method"] for line in worker.named("job.done")] == ["newsletter.write"]
    assert not worker.named("check.finding")


def test_each_policy_allows_what_its_command_asks_and_no_more(stack):
    iam = boto3.client("iam")
    allowed = {}
    for name in ("Worker", "Web", "Crons", "Operator"):
        arn = stack[f"{name}PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        for statement in document["Statement"]:
            assert "*" not in json.dumps(statement["Action"])
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            allowed.setdefault(name, set()).update(actions)
            if statement["Resource"] == "*":
                assert actions in (["scheduler:ListSchedules"], ["cloudwatch:GetMetricStatistics"])
    assert allowed["Web"] == {"sqs:SendMessage"}
    verbs = ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes")
    assert allowed["Worker"] == {f"sqs:{verb}" for verb in verbs}
