"""A cluster of two machines that have not the same disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.machines import Machines, can_hide
from tests.helpers.real_sweep import RealSweep
from tests.helpers.s3_server import BUCKET, environment, moto, use
from tests.helpers.sweeps import outcome_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not can_hide(), reason="needs the right to make a mount namespace"),
]


def test_data_comes_to_a_machine_that_lacks_it(
    spec: Path, alone: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    """The records are in a shared folder; the cache of decoded data is each machine's own."""
    root, cache = tmp_path / "sweep", tmp_path / "cache"
    env = {"ORCHESTRATE_CACHE": str(cache), "HOME": str(temp)}
    with Machines(temp, [cache], env) as machines:
        words = ["sweep", str(spec), "--address", machines.address, "--out", str(root)]
        with RealSweep(root, temp, words, env, tmp_path) as sweep:
            assert sweep.ended() == 0, sweep.said()
            assert "has not the images of digits; sending them" in sweep.said()
    assert outcome_of(root) == alone
    store = SweepLayout.at(root).store
    assert store.names("data/images") and not store.names("data/labels"), "labels stay at home"
    assert not store.names("nodes")


def test_a_machine_is_cut_off_in_mid_stage_and_another_goes_on_from_what_it_put_into_s3(
    spec: Path, alone: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    """No disk is shared: neither data, records nor checkpoints."""
    cache, place = tmp_path / "cache", f"s3://{BUCKET}/cut/sweep"
    root = tmp_path / "driver"
    with moto() as endpoint, use(endpoint):
        env = environment(endpoint) | {"ORCHESTRATE_CACHE": str(cache)}
        with Machines(temp, [cache], env) as machines:
            words = ["sweep", str(spec), "--address", machines.address, "--out", place]
            words += ["--set", "resources.max_concurrent=1"]
            with RealSweep(root, temp, words, env | {"HOME": str(temp)}, tmp_path) as sweep:
                store = SweepLayout.at(place).store
                sweep.until(
                    "a checkpoint is in the bucket",
                    lambda _: any("/checkpoints/" in name for name in store.names("stages")),
                )
                machines.cut()
                machines.join()
                assert sweep.ended() == 0, sweep.said()
        assert outcome_of(place) == alone
        assert not [name for name in store.names() if "/checkpoints/" in name]


def test_a_machine_that_does_not_see_the_records_is_named_and_nothing_is_bought(
    spec: Path, temp: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    root = out / "sweep"
    with Machines(temp, [out], {}) as machines:
        words = ["sweep", str(spec), "--address", machines.address, "--out", str(root)]
        with RealSweep(root, temp, words, {"HOME": str(temp)}, tmp_path) as sweep:
            # The log lies beside the folder, and the driver's machine sees both.
            assert sweep.ended() == 2, sweep.said()
            said = sweep.said()
    assert "127.0.0.2: this machine of the cluster does not see the records" in said
    assert "--out /shared/DIR" in said and "--out s3://" in said
    layout = SweepLayout.at(root)
    assert not layout.store.names(layout.trials) and not layout.store.names("nodes")
