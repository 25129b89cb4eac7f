"""The templates in deploy/aws: clean by cfn-lint, deployed into moto, and what works against what they made."""

import json
import os
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
import yaml
from servers import ROOT
from workers import PROGRAM, Worker

from jobrunner.cli import main
from jobrunner.queue.schedules import Place, Schedules

#: What moto's CloudFormation passes over; the linter judges these.
MOTO_LACKS = (
    "AWS..(SQS..QueuePolicy|Scheduler..ScheduleGroup|CloudWatch..Alarm"
    "|ApplicationAutoScaling..ScalableTarget|ApplicationAutoScaling..ScalingPolicy)"
)
pytestmark = pytest.mark.filterwarnings(f"ignore:Tried to parse {MOTO_LACKS} but:UserWarning")

TEMPLATE = ROOT / "deploy" / "aws" / "jobrunner.yaml"
SERVICE = ROOT / "deploy" / "aws" / "service.yaml"


@pytest.fixture
def stack(moto_url, monkeypatch):
    """Deploy the template; gives its outputs, with the environment of a shell that has AWS."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    app = f"shop-{uuid.uuid4().hex[:8]}"
    return {"App": app, **deploy(TEMPLATE, app, App=app)}


def deploy(template, name, **parameters):
    """Make a stack; gives its outputs."""
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=template.read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (made,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}


def jobrunner(*words, code=0):
    done = subprocess.run([*PROGRAM, *words], check=False, capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == code, done
    return done.stdout


def test_the_templates_are_clean():
    linter = Path(sys.executable).parent / "cfn-lint"
    subprocess.run([linter, TEMPLATE, SERVICE], check=True)


def service(stack, **more):
    """Deploy the service beside the queue's stack, by parameters that have the names of its outputs."""
    ec2 = boto3.client("ec2")
    group = ec2.describe_security_groups()["SecurityGroups"][0]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [group["VpcId"]]}])["Subnets"]
    boto3.client("ecs").create_cluster(clusterName="default")
    target = boto3.client("elbv2").create_target_group(
        Name=stack["App"], Protocol="HTTP", Port=8000, VpcId=group["VpcId"], TargetType="ip"
    )
    template = yaml.load(SERVICE.read_text(), Loader=CloudFormation)
    policies = template["Resources"]["TaskRole"]["Properties"]["ManagedPolicyArns"]
    assert policies == ["WorkerPolicyArn", "WebPolicyArn"], "moto passes these over"
    shared = set(template["Parameters"]) & set(stack)
    given = {"App", "QueueUrl", "WorkerPolicyArn", "WebPolicyArn", "LaterGroup", "CronsRoleArn", "DeadLettersArn"}
    assert shared == given
    return deploy(
        SERVICE,
        f"{stack['App']}-service",
        Image="shop:1",
        Subnets=",".join(subnet["SubnetId"] for subnet in subnets[:2]),
        SecurityGroups=group["GroupId"],
        TargetGroupArn=target["TargetGroups"][0]["TargetGroupArn"],
        **{name: stack[name] for name in shared},
        **more,
    )


class CloudFormation(yaml.SafeLoader):
    """YAML with CloudFormation's own tags: what they refer to, as it is written."""


CloudFormation.add_multi_constructor("!", lambda _loader, _tag, node: node.value)


def test_the_service_is_made_beside_the_queue(stack):
    outputs = service(stack, StopSeconds="60", ProtectAfterSeconds="300", TasksMax="10")
    ecs, iam = boto3.client("ecs"), boto3.client("iam")
    (made,) = ecs.describe_services(cluster="default", services=[outputs["ServiceName"]])["services"]
    task = ecs.describe_task_definition(taskDefinition=made["taskDefinition"])["taskDefinition"]
    (container,) = task["containerDefinitions"]
    environment = {pair["name"]: pair["value"] for pair in container["environment"]}
    assert environment["JOBRUNNER_QUEUE_URL"] == stack["QueueUrl"]
    assert environment["JOBRUNNER_PROTECT_AFTER"] == "300"
    assert int(environment["STOP_SECONDS"]) == int(container["stopTimeout"]) == 60
    assert container["healthCheck"]["command"] == ["CMD", "python", "deploy/healthy.py"]
    options = container["logConfiguration"]["options"]
    assert (options["mode"], options["awslogs-group"]) == ("non-blocking", outputs["LogGroup"])
    document = str(iam.get_role_policy(RoleName=outputs["TaskRoleName"], PolicyName="task")["PolicyDocument"])
    assert "ecs:UpdateTaskProtection" in document
    assert ":task/default/*" in document


def test_the_service_names_variables_that_are_ours():
    named = set(re.findall(r"- Name: ([A-Z][A-Z_]+)$", SERVICE.read_text(), re.MULTILINE))
    ours = {option.envvar for option in main.commands["consume"].params} | {"JOBRUNNER_PROCESSES"}
    later = {f"JOBRUNNER_LATER_{name}" for name in ("GROUP", "ROLE_ARN", "DEAD_LETTER_ARN")}
    assert named - ours == {"STOP_SECONDS", "HEALTH_PATH", *later}


def test_check_crons_and_a_job_work_on_what_the_template_made(stack, monkeypatch):
    url = stack["QueueUrl"]
    boto3.client("scheduler").create_schedule_group(Name=stack["LaterGroup"])  # moto's CloudFormation makes none
    variables = {"GROUP": "LaterGroup", "ROLE_ARN": "CronsRoleArn", "DEAD_LETTER_ARN": "DeadLettersArn"}
    for name, output in variables.items():
        monkeypatch.setenv(f"JOBRUNNER_LATER_{name}", stack[output])
    found = json.loads(jobrunner("check", "--queue-url", url, "--json"))
    assert {finding["level"] for finding in found} == {"ok"}, found
    (later,) = [finding for finding in found if finding["subject"] == "later"]
    assert stack["LaterGroup"] in later["value"]
    place = ["--app", stack["App"], "--env", "production", "--queue-url", url, "--role-arn", stack["CronsRoleArn"]]
    place += ["--dead-letter-arn", stack["DeadLettersArn"]]
    assert "changes made: 4" in jobrunner("crons", "apply", *place), "moto's CloudFormation makes no schedule groups"
    jobrunner("crons", "plan", *place)
    schedules = boto3.client("scheduler").list_schedules(GroupName=f"jobrunner-{stack['App']}-production")["Schedules"]
    assert len(schedules) == 3
    later = later_job(stack, url)
    cron = boto3.client("scheduler").get_schedule(GroupName=schedules[0]["GroupName"], Name=schedules[0]["Name"])
    extra = {name: cron[name] for name in ("ScheduleExpression", "FlexibleTimeWindow", "Target")}
    boto3.client("scheduler").create_schedule(GroupName=cron["GroupName"], Name="extra", **extra)
    assert "- extra\n" in jobrunner("crons", "apply", *place, "--prune")
    assert later() == [f"later.{stack['App']}-production"], "no command for crons touches what waits for later"
    jobrunner("enqueue", "newsletter.write", "--queue-url", url)
    worker = Worker("consume", "--queue-url", url, "--stop-when-empty", "--wait-seconds", "1", cwd=ROOT)
    assert worker.end() == 0, str(worker)
    assert [line["method"] for line in worker.named("job.done")] == ["newsletter.write"]
    assert not worker.named("check.finding")


def later_job(stack, url):
    """Put a job off by the template's outputs; gives what lists the groups of such jobs."""
    client = boto3.client("scheduler")
    place = Place(group=stack["LaterGroup"], role_arn=stack["CronsRoleArn"], dead_letter_arn=stack["DeadLettersArn"])
    schedules = Schedules(place=place, queue_url=url, read_seconds=5)
    schedules.create("later-job", "{}", datetime.now(UTC) + timedelta(days=3), group=None)
    return lambda: [each["GroupName"] for each in client.list_schedules(NamePrefix="later-job")["Schedules"]]


def test_each_policy_allows_what_its_command_asks_and_no_more(stack):
    iam = boto3.client("iam")
    allowed, passed = {}, []
    for name in ("Worker", "Web", "Crons", "Operator"):
        arn = stack[f"{name}PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        for statement in document["Statement"]:
            assert "*" not in json.dumps(statement["Action"])
            for action in listed(statement["Action"]):
                allowed.setdefault(name, {}).setdefault(action, []).extend(listed(statement["Resource"]))
                if action == "iam:PassRole":
                    passed.append((statement["Resource"], statement["Condition"]))
    dead = stack["DeadLettersArn"]
    jobs = dead.removesuffix("-dead")
    place = f"{stack['App']}-production"
    later = {f"scheduler:{verb}Schedule": f":schedule/later.{place}/*" for verb in ("Create", "Get", "Delete")}
    crons = {
        f"scheduler:{verb}Schedule": f":schedule/jobrunner-{place}/*" for verb in ("Create", "Get", "Update", "Delete")
    }
    dead_only = ("StartMessageMoveTask", "ListMessageMoveTasks", "CancelMessageMoveTask", "ListDeadLetterSourceQueues")
    assert ends(allowed["Worker"]) == {
        **{f"sqs:{verb}": [jobs] for verb in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility")},
        "sqs:GetQueueAttributes": [jobs, dead],
        "sqs:SendMessage": [dead, jobs],
    }
    assert ends(allowed["Web"]) == {
        "sqs:SendMessage": [jobs],
        **{action: [place] for action, place in later.items()},
        "iam:PassRole": [stack["CronsRoleArn"]],
    }
    assert ends(allowed["Crons"]) == {
        **{action: [place] for action, place in crons.items()},
        **{
            f"scheduler:{verb}": [f":schedule-group/jobrunner-{place}"]
            for verb in ("GetScheduleGroup", "ListTagsForResource")
        },
        "scheduler:ListSchedules": ["*"],
        "iam:PassRole": [stack["CronsRoleArn"]],
    }
    assert ends(allowed["Operator"]) == {
        "sqs:GetQueueAttributes": [jobs, dead],
        "sqs:SendMessage": [jobs],
        **{
            f"sqs:{verb}": [dead] for verb in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", *dead_only)
        },
        **{action: [place] for action, place in later.items() if "Create" not in action},
        "scheduler:ListSchedules": ["*"],
        "cloudwatch:GetMetricStatistics": ["*"],
    }
    assert passed == [(stack["CronsRoleArn"], {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}})] * 2


def listed(value):
    return value if isinstance(value, list) else [value]


def ends(statements):
    """Leave the account and the region out of what Scheduler's resources are."""
    return {
        action: [re.sub("^arn:aws:scheduler:[^:]*:[^:]*", "", resource) for resource in resources]
        for action, resources in statements.items()
    }
