"""A sweep that stops at its own limit says what is left, ends with status 4, and goes on to what an
undisturbed one comes to.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from orchestrator import driver
from orchestrator.engines.limits import Limits
from search_spaces.reading.config import ResourcesConfig
from tests.helpers.small_sweep import SPEC, Run, write_data
from tests.helpers.sweeps import outcome_of


def ticking(resources: ResourcesConfig) -> Limits:
    """Limits by a clock on which an hour passes with each look."""
    hours = itertools.count()
    return Limits(resources.max_hours, clock=lambda: 3600.0 * next(hours))


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder has a spec and its data."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    (tmp_path / "spec.yaml").write_text(SPEC)


def test_it_stops_at_a_stage_end_and_goes_on(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    sweep = ["sweep", "spec.yaml", "--engine", "inline", "--out"]
    assert run(*sweep, "whole")[0] == 0
    monkeypatch.setattr(driver, "limits_of", ticking)
    limit = ["--set", "resources.max_hours=5"]
    # Each training looks three times: before it starts, as it starts and as it ends.
    status, out, said = run(*sweep, "out", *limit, "--accept-failures")
    assert status == 4
    assert (
        "stopped by resources.max_hours = 5: 2 of 4 stage trainings are left; continue with:"
        " orchestrate resume out\n" in said
    )
    assert "Report: " in out and "unfinished" not in said
    # The limit is of one run: this one has its own.
    assert run("resume", "out")[0] == 0
    assert outcome_of("out") == outcome_of("whole")


def test_a_limit_may_be_another_at_resume_and_is_part_of_no_id(run: Run) -> None:
    sweep = ["sweep", "spec.yaml", "--engine", "inline", "--out"]
    assert run(*sweep, "whole")[0] == 0
    status, _, said = run(*sweep, "out", "--set", "resources.max_hours=1e-9")
    assert status == 4 and "4 of 4 stage trainings are left" in said
    status, _, said = run(
        "resume",
        "out",
        *("--set", "resources.max_hours=1000"),
        *("--set", "resources.price_per_hour=36"),
    )
    assert status == 0
    assert "x 1 worker(s) x 36 an hour (resources.price_per_hour) = " in said
    assert outcome_of("out") == outcome_of("whole")


def test_the_price_is_that_of_the_training_on_record(run: Run) -> None:
    priced = ["--set", "resources.price_per_hour=7200"]
    assert run("sweep", "spec.yaml", "--engine", "inline", "--out", "out", *priced)[0] == 0
    facts = json.loads(run("status", "out", "--json")[1])
    trained = [stage for trial in facts["trials"] for stage in trial["stages"] if stage["trained"]]
    seconds = sum(stage["seconds"] for stage in trained)
    assert facts["price"]["price"] == pytest.approx(2 * seconds)
    assert facts["price"]["workers"] == 1
    assert f"= {2 * seconds:,.2f}" in " ".join(run("status", "out")[1].split())
