"""The same cases on each SQS there is."""

import pytest


@pytest.fixture(params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq), "ministack"])
def kind(request):
    """Name the server that a case runs on."""
    return request.param


@pytest.fixture
def server_url(kind, request):
    return request.getfixturevalue(f"{kind}_url")
