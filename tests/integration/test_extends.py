"""A sweep of a spec that extends others keeps all of them, and needs none of the originals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.catalogue import load_spec
from orchestrator.sweeps.candidates import load_candidates
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading import extends, yaml_source
from search_spaces.reading.trials import enumerate_trials
from tests.helpers.small_sweep import SPEC, Run, files, write_data

PACKAGED = SPEC.partition("cases:")[0]
SHARED = """\
extends: packaged.yaml
vary: {method.consistency_weight: {uniform: [0.5, 2]}}
search: {algorithm: random, num_candidates: 1}
"""
OWN = "extends: ../parts/shared.yaml\nname: mine\nseeds: [0]\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data, a spec in `specs`, one that it extends in `parts`, and one that this
    one extends among the packaged.
    """
    for folder, name, text in (
        ("packaged", "packaged", PACKAGED),
        ("parts", "shared", SHARED),
        ("specs", "own", OWN),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.yaml").write_text(text)
    for module in (extends, yaml_source):
        monkeypatch.setattr(module, "PACKAGED", tmp_path / "packaged")
    write_data(tmp_path / "features.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SWEEP = ("sweep", "specs/own.yaml", "--engine", "inline", "--out", "out")


def test_a_sweep_is_gone_on_with_when_the_files_it_was_made_of_are_gone(
    world: Path, run: Run
) -> None:
    assert run(*SWEEP)[0] == 0
    kept = files(world / "out")
    assert {name: kept[name].decode() for name in kept if "spec" in name} == {
        "spec.yaml": OWN,
        "spec/1-shared.yaml": SHARED,
        "spec/2-packaged.yaml": PACKAGED,
    }
    longer = enumerate_trials(load_spec("specs/own.yaml", ["search.num_candidates=2"])) or []

    shutil.rmtree("specs")
    shutil.rmtree("parts")
    Path("packaged/packaged.yaml").write_text(PACKAGED.replace("epochs: 1", "epochs: 9"))
    shutil.move("out", "moved")
    assert run("resume", "moved", "--engine", "inline")[0] == 0
    after = files(world / "moved")
    facts = [name for name in kept if not name.startswith(("report/", "driver.lock"))]
    assert [name for name in facts if after[name] != kept[name]] == []
    assert run("extend", "moved", "-n", "1", "--engine", "inline")[0] == 0
    found = load_candidates(SweepLayout.at("moved"))
    assert [candidate.id for candidate in found] == [trial.candidate for trial in longer]
    code, out, _ = run("report", "moved", "--json")
    assert code == 0
    report = json.loads((world / "moved" / "report" / "report.json").read_text())
    assert [row["n"] for row in report["rows"]] == [1, 1], out
    assert run("ledger", "verify", "moved")[0] == 0


def test_the_same_command_goes_on_and_one_with_another_file_below_is_another_sweep(
    world: Path, run: Run
) -> None:
    assert run(*SWEEP)[0] == 0
    before = files(world / "out" / "trials")
    assert run(*SWEEP)[0] == 0
    assert files(world / "out" / "trials") == before
    Path("parts/shared.yaml").write_text(SHARED.replace("[0.5, 2]", "[0.5, 3]"))
    code, _, said = run(*SWEEP)
    assert code == 2 and "out: already holds another sweep" in said
    assert files(world / "out" / "trials") == before


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_kept_file_that_is_not_what_was_kept_is_named(world: Path, run: Run, damage: str) -> None:
    assert run(*SWEEP)[0] == 0
    file = Path("out/spec/2-packaged.yaml")
    if damage == "changed":
        file.write_text(PACKAGED.replace("epochs: 1", "epochs: 9"))
    else:
        file.unlink()
    for words in (
        ("resume", "out", "--engine", "inline"),
        ("ledger", "verify", "out"),
        ("report", "out"),
    ):
        code, out, said = run(*words)
        assert code != 0 and f"{file}: " in said + out, words


def test_a_creation_that_was_cut_short_is_taken_up_again(world: Path, run: Run) -> None:
    assert run(*SWEEP)[0] == 0
    kept = files(world / "out" / "spec")
    shutil.rmtree("out/trials")
    for gone in ("resolved.yaml", "seal.json", "report", "stages"):
        path = Path("out", gone)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, _, said = run(*SWEEP)
    assert code == 0, said
    assert files(world / "out" / "spec") == kept != {}
