"""A sweep that was written when schema 2 was new is read, resumed and extended by every later
version: tests/data/schema2 is never made anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from orchestrator.commands.replay import verify
from orchestrator.sweeps.candidates import load_candidates
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.dying import run_cli

GOLDEN = Path(__file__).parents[1] / "data" / "schema2"

THIRD = "e62a05b69386"
"""The candidate that the search draws after the two on record."""


def write_data(path: Path) -> None:
    """Three classes of five features, by arithmetic that no library's version changes."""
    rows, columns = np.arange(90)[:, None], np.arange(5)[None, :]
    x = ((rows * 7919 + columns * 104729 + rows * columns * 31) % 101 / 101).astype(np.float32)
    y = np.arange(90) % 3
    x[np.arange(90), y] += 1
    np.savez(path, x=x, y=y)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "out")
    write_data(tmp_path / "features.npz")
    return tmp_path


def facts(folder: Path) -> dict[str, bytes]:
    kept = ("candidates/", "trials/", "spec.yaml", "manifest.json")
    found = {
        path.relative_to(folder / "out").as_posix(): path.read_bytes()
        for path in (folder / "out").rglob("*")
        if path.is_file()
    }
    return {name: data for name, data in found.items() if name.startswith(kept)}


def test_it_is_reported_and_its_ledgers_verify(folder: Path) -> None:
    assert run_cli(["report", "out", "--json"], folder) == 0
    report = json.loads((folder / "out" / "report" / "report.json").read_text())
    assert [row["n"] for row in report["rows"]] == [1, 1]
    assert all(row["bits"] <= 40 for row in report["rows"])
    for trial in (folder / "out" / "trials").iterdir():
        assert verify(trial / "ledger")["segments"] >= 3


def test_it_is_gone_on_with_and_nothing_on_record_changes(folder: Path) -> None:
    before = facts(folder)
    here = ["--set", "dataset.path=features.npz", "--engine", "inline"]
    assert run_cli(["resume", "out", *here], folder) == 0, (folder / "log").read_text()
    assert facts(folder) == before
    assert run_cli(["extend", "out", "-n", "1", *here], folder) == 0, (folder / "log").read_text()
    after = facts(folder)
    assert {name: after[name] for name in before} == before
    assert [candidate.id for candidate in load_candidates(SweepLayout.at(folder / "out"))][2:] == [
        THIRD
    ], "the same search draws another candidate than it did"


def test_a_record_that_is_lost_is_made_anew_from_it(folder: Path) -> None:
    """Also without the trained stages: they are trained again, and what was asked stands."""
    before = facts(folder)
    lost = sorted((folder / "out" / "trials").glob("*/stages/0001.json"))[0]
    bits = json.loads(lost.read_text())["bits"]
    lost.unlink()
    assert (
        run_cli(
            ["resume", "out", "--set", "dataset.path=features.npz", "--engine", "inline"], folder
        )
        == 0
    ), (folder / "log").read_text()
    assert json.loads(lost.read_text())["bits"] == bits
    ledgers = {name for name in before if "/ledger/" in name}
    assert {name: data for name, data in facts(folder).items() if name in ledgers} == {
        name: before[name] for name in ledgers
    }
