"""The three requests that a worker makes for every ten jobs, at less than half their price; any thread.

botocore's client checks, serializes and parses by its model of SQS, which is most of a request's time on the
processor. Here are its credentials, its signer and its words for errors, without that.
"""

import json
import ssl
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from typing import Any

from botocore import exceptions as botocore
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.parsers import create_parser

from jobrunner.queue.connections import ConnectFailed, Connections

OK = 200
#: What is served so; all else of botocore's models is not known here.
PROTOCOL = "json"


class LeanClient:
    """Botocore's client, but for what is asked for all the time. `credentials` are a session's, or None."""

    def __init__(self, client: Any, *, credentials: Any, user_agent: str) -> None:
        self._client = client
        self._credentials = credentials
        self._model = client.meta.service_model
        self._url = client.meta.endpoint_url.rstrip("/") + "/"
        config = client.meta.config
        self._connections = Connections(
            self._url,
            connect_seconds=config.connect_timeout,
            read_seconds=config.read_timeout,
            tls=_trusting_what_botocore_trusts() if self._url.startswith("https:") else None,
        )
        self._headers = {
            "Content-Type": f"application/x-amz-json-{self._model.metadata['jsonVersion']}",
            "User-Agent": user_agent,
            "x-amzn-query-mode": "true",  # errors have the names that they always had
        }

    def __getattr__(self, name: str) -> Any:
        """Give all else from botocore's client."""
        return getattr(self._client, name)

    def receive_message(self, **params: Any) -> Mapping[str, Any]:
        """Do as botocore's does."""
        return self._ask("ReceiveMessage", params)

    def delete_message_batch(self, **params: Any) -> Mapping[str, Any]:
        """Do as botocore's does."""
        return self._ask("DeleteMessageBatch", params)

    def change_message_visibility_batch(self, **params: Any) -> Mapping[str, Any]:
        """Do as botocore's does."""
        return self._ask("ChangeMessageVisibilityBatch", params)

    def _ask(self, operation: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        body = json.dumps(params).encode()
        status, headers, data = self._send(body, self._signed(operation, body))
        if status == OK:
            answer: Mapping[str, Any] = json.loads(data)
            return answer
        shape = self._model.operation_model(operation).output_shape
        refusal = {"status_code": status, "headers": headers, "body": data}
        raise botocore.ClientError(create_parser(PROTOCOL).parse(refusal, shape), operation)

    def _signed(self, operation: str, body: bytes) -> dict[str, str]:
        headers = {**self._headers, "X-Amz-Target": f"{self._model.metadata['targetPrefix']}.{operation}"}
        request = AWSRequest("POST", self._url, headers, body)
        if self._credentials is None:
            raise botocore.NoCredentialsError
        frozen = self._credentials.get_frozen_credentials()  # as they are now: they are refreshed at any time
        SigV4Auth(frozen, self._model.signing_name, self._client.meta.region_name).add_auth(request)
        return dict(request.headers.items())

    def _send(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, HTTPMessage, bytes]:
        try:
            return self._connections.post(body, headers)
        except ConnectFailed as error:
            raise botocore.EndpointConnectionError(endpoint_url=self._url, error=error) from error
        except ssl.SSLError as error:
            raise botocore.SSLError(endpoint_url=self._url, error=error) from error
        except TimeoutError as error:
            raise botocore.ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except (OSError, HTTPException) as error:
            raise botocore.ConnectionClosedError(endpoint_url=self._url, error=error) from error


def _trusting_what_botocore_trusts() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=get_cert_path(True))  # noqa: FBT003 - botocore's own signature
