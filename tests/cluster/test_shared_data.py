"""On Ray, prepared data goes from its store to the machines that train, and its labels to the head
alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.catalogue import load_spec
from orchestrator.data.publish import put_spec_data
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.real_sweep import RealSweep, uninterrupted
from tests.helpers.s3_server import BUCKET, environment, moto, use
from tests.helpers.small_sweep import SPEC, write_data
from tests.helpers.sweeps import outcome_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_sweep_on_machines_without_raw_data_is_the_sweep_of_the_data(
    temp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    spec = tmp_path / "spec.yaml"
    # A pool that looks at features must have them where it is.
    cold = "  cold: {schedule.initial_choice: typiclust}\nseeds: [0]"
    written = SPEC.replace("features.npz", str(tmp_path / "features.npz"))
    spec.write_text(written.replace("seeds: [0]", cold))
    home = tmp_path / "home"
    uninterrupted(home, ["sweep", str(spec), "--engine", "inline", "--out", str(home)])
    root, place = tmp_path / "driver", f"s3://{BUCKET}/sweeps/one"
    with moto() as endpoint, use(endpoint):
        path = put_spec_data(load_spec(str(spec)), f"s3://{BUCKET}/sweeps/_data")
        (tmp_path / "features.npz").rename(tmp_path / "away.npz")
        env = environment(endpoint) | {"HOME": str(temp)}
        env["ORCHESTRATE_CACHE"] = str(tmp_path / "cache")
        words = ["sweep", str(spec), "--local", "--out", place, "--set", f"dataset.path={path}"]
        with RealSweep(root, temp, words, env, tmp_path) as sweep:
            assert sweep.ended() == 0, sweep.said()
            assert "sending them" not in sweep.said()
        assert outcome_of(place) == outcome_of(home)
        store = SweepLayout.at(place).store
        assert not [name for name in store.names() if name.startswith(("data", "_data"))]
