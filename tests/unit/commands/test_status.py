"""The verb `status` beside a sweep that goes on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli
from orchestrator.commands import status
from orchestrator.reporting import results
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.small_sweep import SPEC, write_data


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep in `left` that its own limit has stopped."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    (tmp_path / "spec.yaml").write_text(SPEC)
    words = ["--engine", "inline", "--out", "left", "--set", "resources.max_hours=1e-9"]
    assert cli.main(["sweep", "spec.yaml", *words]) == 4


@pytest.mark.usefixtures("left")
def test_a_sweep_that_ends_while_it_is_looked_at_is_not_called_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, load = SweepLayout.at("left"), results.load
    assert status.show("left", watch=False, as_json=False) == 0
    assert "nobody is running it" in capsys.readouterr().err
    running = ExitStack()
    running.enter_context(layout.store.hold(layout.lock, wait=False))

    def load_and_end(*args: Any) -> results.SweepResults:
        loaded = load(*args)
        running.close()
        monkeypatch.setattr(results, "load", load)
        assert cli.main(["resume", "left", "--set", "resources.max_hours=null"]) == 0
        return loaded

    monkeypatch.setattr(results, "load", load_and_end)
    assert status.show("left", watch=False, as_json=False) == 0
    assert "nobody is running it" not in capsys.readouterr().err
