"""A sweep on Ray is kept by a store of another package: what its processes are given is the store
itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.packages import install
from tests.helpers.real_sweep import RealSweep
from tests.helpers.s3_server import BUCKET, environment, moto, use
from tests.helpers.sweeps import outcome_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_sweep_on_ray_is_kept_at_an_address(
    spec: Path,
    alone: dict[str, Any],
    temp: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(
        site,
        "toy_store",
        "",
        "[orchestrate.stores]\nsqlite = tests.helpers.toy_stores:SqliteStore\n",
    )
    monkeypatch.syspath_prepend(site)
    path = os.pathsep.join(
        [str(site), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    )
    root = tmp_path / "kept"
    place = f"sqlite://{root}/sweep.db"
    words = ["sweep", str(spec), "--local", "--out", place]
    with RealSweep(root, temp, words, {"PYTHONPATH": path}, tmp_path) as sweep:
        assert sweep.ended() == 0, sweep.said()
    assert outcome_of(place) == alone
    # What was trained is in the store, and nothing of it is left where it was made.
    assert not [left for left in temp.rglob("orchestrate-work/**/*") if left.is_file()]


def test_a_sweep_on_ray_is_kept_in_s3(
    spec: Path, alone: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    place = f"s3://{BUCKET}/kept"
    words = ["sweep", str(spec), "--local", "--out", place]
    with moto() as endpoint, use(endpoint):
        with RealSweep(tmp_path / "kept", temp, words, environment(endpoint), tmp_path) as sweep:
            assert sweep.ended() == 0, sweep.said()
        assert outcome_of(place) == alone
