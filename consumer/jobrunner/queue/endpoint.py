"""Where a queue lives, and botocore's clients for it; make them all in one thread before others start."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from jobrunner.errors import SettingsError

CONNECT_SECONDS = 5

#: Every form of an SQS host (AWS: "Amazon SQS endpoints"; legacy and VPC endpoint forms included).
AWS_HOST = re.compile(
    r"(?:(?P<vpce>vpce-[a-z0-9-]+)\.)?sqs(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:vpce\.)?"
    r"(?:amazonaws\.com(?:\.cn)?|api\.aws|api\.amazonwebservices\.com\.cn)"
    r"|(?:(?P<legacy>[a-z0-9-]+)\.)?queue\.amazonaws\.com(?:\.cn)?"
)


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
            user_agent_appid="jobrunner",
        )
        return self._create("sqs", endpoint_url=self._endpoint_url, config=config)

    def other_client(self, service: str, *, read_seconds: float) -> Any:
        """Make a client for another service beside the queue; None where an emulator has none."""
        configured = os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or os.environ.get("AWS_ENDPOINT_URL")
        if self._endpoint_url and not configured and not AWS_HOST.fullmatch(urlsplit(self.queue_url).hostname or ""):
            return None
        config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=read_seconds, retries={"total_max_attempts": 2})
        return self._create(service, endpoint_url=configured, config=config)

    def _create(self, service: str, **how: Any) -> Any:
        try:
            with _looking_for_nothing_else(self._session, service):
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
    if found := AWS_HOST.fullmatch(parts.hostname or ""):
        own_endpoint = f"{parts.scheme}://{parts.netloc}" if found["vpce"] else None
        return found["region"] or found["legacy"] or "us-east-1", own_endpoint
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    configured = environ.get("AWS_ENDPOINT_URL_SQS") or environ.get("AWS_ENDPOINT_URL")
    return region, configured or f"{parts.scheme}://{parts.netloc}"


def queue_arn(queue_url: str, region: str) -> str:
    """Derive a queue's ARN from its URL."""
    account, _, name = queue_url.split("://", 1)[-1].partition("/")[2].partition("/")
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    return f"arn:{partition}:sqs:{region}:{account}:{name}"
