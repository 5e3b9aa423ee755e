"""What all tests share: a cache that is not that of the person who runs them, and an S3 server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.helpers.s3_server import Proxy, moto, use

# A property is not wrong because the machine is busy.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("ORCHESTRATE_CACHE")
    os.environ["ORCHESTRATE_CACHE"] = str(tmp_path_factory.mktemp("prepared"))
    yield
    if before is None:
        del os.environ["ORCHESTRATE_CACHE"]
    else:
        os.environ["ORCHESTRATE_CACHE"] = before


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The endpoint of an S3 server, to which nothing points yet."""
    with moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def server_in_use(server: str) -> Iterator[str]:
    """The same, to which the environment points."""
    with use(server):
        yield server


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    """Stands before the server; the environment points to it."""
    with Proxy(server) as between, use(between.endpoint):
        yield between
