"""What the tests of the trainers share: one small data cache, a stage's inputs, and what the stage
comes to when nothing disturbs it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.stage_world import score_bytes, some_inputs, stage_request, write_cache
from trainers.run import run_stage
from trainers.stage import Classes, StageInputs


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Classes]:
    return write_cache(tmp_path_factory.mktemp("cache") / "patterns")


@pytest.fixture(scope="module")
def data_dir(cache: tuple[Path, Classes]) -> Path:
    return cache[0]


@pytest.fixture(scope="module")
def inputs(cache: tuple[Path, Classes]) -> StageInputs:
    return some_inputs(cache[1])


@pytest.fixture(scope="module")
def uninterrupted(
    data_dir: Path, inputs: StageInputs, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    request = stage_request(data_dir, inputs, tmp_path_factory.mktemp("reference"))
    return score_bytes(request, run_stage(request))
