"""Where a queue lives, and botocore's clients for it; make them all in one thread before others start."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import botocore
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.loaders import Loader
from botocore.session import Session
from botocore.utils import get_environ_proxies

from jobrunner.errors import AccessDenied, SettingsError
from jobrunner.queue.lean import PROTOCOL, LeanClient

CONNECT_SECONDS = 5
#: Whole, so that botocore need not put its own together: it does so for each request, for a fifth of its time.
USER_AGENT = f"jobrunner botocore/{botocore.__version__}"

#: What can go wrong while credentials are fetched: from ECS, from EC2 (a hop limit of 1), from an expired login.
CREDENTIAL_ERRORS = (
    getattr(exceptions, "LoginError", SSOError),  # an older botocore has no `aws login`
    CredentialRetrievalError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)


@contextmanager
def naming_credentials() -> Iterator[None]:
    """Raise AccessDenied with the cure where a request has no credentials to be signed with."""
    try:
        yield
    except (*CREDENTIAL_ERRORS, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "credentials" not in str(error):  # botocore: old although refreshed
            raise
        raise AccessDenied(
            f"no AWS credentials: {error}. On AWS give the task or instance a role (in a container on EC2 the "
            "metadata's hop limit must be 2); on a laptop `aws sso login` or `aws login`; with an emulator set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to anything"
        ) from error


class Endpoint:
    """The place of one queue: its region, its endpoint, a session of our own."""

    def __init__(self, queue_url: str) -> None:
        self.queue_url = queue_url
        self.region, self._endpoint_url = locate(queue_url, os.environ)
        # botocore is boto3 without its S3 transfers and resources, which would double the time to start.
        # A session of our own: boto3's default one is shared with the app and is not thread-safe.
        self._session = Session()

    def client(self, *, read_seconds: float, attempts: int, connections: int, connect_seconds: float) -> Any:
        """Make a client; `attempts` is the total of tries that boto3 makes by itself.

        Raises SettingsError for what botocore cannot make one of: a host with an underscore, no such profile.
        """
        config = Config(
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=connections,
            tcp_keepalive=True,
            user_agent=USER_AGENT,
        )
        return self._create("sqs", endpoint_url=self._endpoint_url, config=config)

    def lean_client(self, **how: Any) -> Any:
        """Make a client for many requests; botocore's own where the way to SQS is unusual."""
        client = self.client(**how)
        if self._is_unusual(client):
            return client
        return LeanClient(client, credentials=self._session.get_credentials(), user_agent=USER_AGENT)

    def _is_unusual(self, client: Any) -> bool:
        """Tell whether a proxy, a CA of one's own or another protocol than JSON is to be used."""
        own_ca = self._session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
        return bool(
            get_environ_proxies(client.meta.endpoint_url)
            or (own_ca and client.meta.endpoint_url.startswith("https:"))
            or client.meta.service_model.metadata["protocol"] != PROTOCOL
        )

    def other_client(
        self, service: str, *, read_seconds: float, connect_seconds: float = CONNECT_SECONDS, attempts: int = 2
    ) -> Any:
        """Make a client for another service beside the queue; None where an emulator has none."""
        configured = os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or os.environ.get("AWS_ENDPOINT_URL")
        if self._endpoint_url and not configured and not aws_host(self.queue_url):
            return None
        config = Config(
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )
        return self._create(service, endpoint_url=configured, config=config)

    def scheduler(self, **how: Any) -> Any:
        """Make a client for EventBridge Scheduler as `other_client` does; raises SettingsError where there is none."""
        client = self.other_client("scheduler", **how)
        if client is None:
            raise SettingsError(
                f"there is no EventBridge Scheduler beside {self.queue_url}: `jobrunner dev` has one, "
                "or set AWS_ENDPOINT_URL_SCHEDULER to an emulator's"
            )
        return client

    def arn(self) -> str:
        """Give the queue's ARN: in AWS its URL says it, any other server is asked, and believed where it answers."""
        derived = queue_arn(self.queue_url, self.region)
        if aws_host(self.queue_url):
            return derived
        client = self.client(read_seconds=CONNECT_SECONDS, attempts=1, connections=1, connect_seconds=CONNECT_SECONDS)
        try:
            answer = client.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["QueueArn"])
        except (ClientError, BotoCoreError, OSError):
            return derived
        own: str = answer.get("Attributes", {}).get("QueueArn", derived)
        return own

    def _create(self, service: str, **how: Any) -> Any:
        try:
            with naming_credentials(), _looking_for_nothing_else(self._session, service):
                return self._session.create_client(service, region_name=self.region, **how)
        except (ValueError, BotoCoreError) as error:
            raise SettingsError(
                f"no client for {self.queue_url}: {error}. Look at the URL and at the AWS_ variables"
            ) from error


@contextmanager
def _looking_for_nothing_else(session: Session, service: str) -> Iterator[None]:
    """Spare botocore a look at its four hundred services' folders, twice, to learn that one exists.

    That is a tenth of our start. Only for a while: credentials that are refreshed need other services.
    """
    loader = session.get_component("data_loader")
    loader.list_available_services = lambda *_, **__: [service]
    try:
        yield
    finally:
        del loader.list_available_services


def locate(queue_url: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Give region and endpoint (None: boto3's own).

    boto3 ignores the URL's host and asks its own region, where the queue is not: so for AWS hosts
    the URL's region wins. Any other host (an emulator) is the endpoint itself unless one is set.
    """
    parts = urlsplit(queue_url)
    own_endpoint = f"{parts.scheme}://{parts.netloc}"
    if found := aws_host(queue_url):
        region = found["region"] or found["legacy"] or "us-east-1"
        is_plain = not (found["vpce"] or found["fips"] or found["dual"])
        return region, None if is_plain else own_endpoint
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return region, environ.get("AWS_ENDPOINT_URL_SQS") or environ.get("AWS_ENDPOINT_URL") or own_endpoint


def aws_host(queue_url: str) -> Mapping[str, str | None] | None:
    """Take an AWS host apart; None for any other.

    Forms: AWS, "Amazon SQS endpoints", with the legacy ones and those of VPC endpoints; FIPS and
    dual-stack hosts are endpoints of their own.
    """
    host = urlsplit(queue_url).hostname or ""
    found = _aws_hosts().fullmatch(host)
    return found.groupdict() if found else None


@cache
def _partitions() -> list[dict[str, Any]]:
    """Give AWS's partitions as botocore knows them: a new one comes with a new botocore."""
    found: list[dict[str, Any]] = Loader().load_data("partitions")["partitions"]
    return found


@cache
def _aws_hosts() -> re.Pattern[str]:
    plain, dual = (
        "|".join(sorted({re.escape(each["outputs"][key]) for each in _partitions()}))
        for key in ("dnsSuffix", "dualStackDnsSuffix")
    )
    return re.compile(
        rf"(?:(?P<vpce>vpce-[a-z0-9-]+)\.)?sqs(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\.(?:vpce\.)?(?:(?:{plain})|(?P<dual>{dual}))"
        rf"|(?:(?P<legacy>[a-z0-9-]+)\.)?queue\.(?:{plain})"
    )


def aws(queue_url: str) -> str:
    """Begin a command line that reaches this queue, as we do: the region of a URL alone is passed over."""
    region, endpoint = locate(queue_url, os.environ)
    return f"aws --region {region}" + (f" --endpoint-url {endpoint}" if endpoint else "")


def queue_arn(queue_url: str, region: str) -> str:
    """Derive a queue's ARN from its URL, where the queue cannot be asked for it."""
    *_, account, name = urlsplit(queue_url).path.rsplit("/", 2)  # an emulator may have more before them
    partition = next((each["id"] for each in _partitions() if re.match(each["regionRegex"], region)), "aws")
    return f"arn:{partition}:sqs:{region}:{account}:{name}"
