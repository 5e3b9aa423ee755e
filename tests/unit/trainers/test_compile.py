"""Compiled networks train the same method: close to the eager ones, and the same to the bit each
time.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.stage_world import (
    QUICK,
    score_bytes,
    scores,
    some_inputs,
    stage_request,
    write_cache,
)
from trainers.errors import UserError
from trainers.run import run_stage

COMPILED = dataclasses.replace(QUICK, compile=True, epochs=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler (g++) on a CPU"
)
def test_compiled_networks_train_as_eager_ones_do(tmp_path: Path) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    arrays, raw = [], []
    for name, method in (
        ("eager", dataclasses.replace(COMPILED, compile=False)),
        ("compiled", COMPILED),
        ("again", COMPILED),
    ):
        request = stage_request(folder, some_inputs(truth), tmp_path / name, method=method)
        outcome = run_stage(request)
        arrays.append(scores(request, outcome))
        raw.append(score_bytes(request, outcome))
    np.testing.assert_allclose(arrays[0]["confidence"], arrays[1]["confidence"], atol=1e-3)
    assert raw[1] == raw[2]


def test_a_machine_without_a_compiler_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    folder, truth = write_cache(tmp_path / "cache")
    with pytest.raises(
        UserError,
        match=r"method\.compile: needs a C\+\+ compiler, and there is no no-such-compiler",
    ):
        run_stage(stage_request(folder, some_inputs(truth), tmp_path / "stage", method=COMPILED))


def test_whether_networks_are_compiled_is_read_by_every_stage() -> None:
    plan = dataclasses.replace(QUICK, compile=True).stage(0, 1, has_negatives=False)
    assert plan != QUICK.stage(0, 1, has_negatives=False)
    assert plan.settings["compile"] is True
