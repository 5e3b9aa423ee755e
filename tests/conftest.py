"""No test writes into the cache of the person who runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

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
