"""Records are made anew right, and results are tied to their data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.data.prepare import prepare
from orchestrator.labelling.ledger import LedgerError
from orchestrator.sweeps.candidates import load_candidates
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.trial import open_pool
from tests.helpers.on_disk import disk
from tests.helpers.small_sweep import Run, files, trial_of, write_data
from tests.helpers.sweeps import read_stages

# Records made anew


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_records_made_anew_are_those_that_were_there(
    sweep: SweepLayout, run: Run, gone: tuple[int, ...]
) -> None:
    trial = trial_of(sweep, "two rounds")
    before = files(disk(trial).root)
    bits = [record["bits"]["total"] for record in read_stages(trial)]
    assert len(set(bits)) == 3, "copies of one record would not be noticed"
    for stage in gone:
        disk(trial).stage(stage).unlink()
    code, _, err = run("resume", "out", "--engine", "inline")
    assert code == 0, err
    assert files(disk(trial).root) == before


def test_records_made_anew_without_the_trained_stages_cost_the_same_bits(
    sweep: SweepLayout, run: Run
) -> None:
    """The stages are trained again; what was asked is in the ledger and asked of nobody."""
    trial = trial_of(sweep, "two rounds")
    before, ledger = read_stages(trial), files(disk(trial).ledger)
    shutil.rmtree(disk(trial).stages)
    shutil.rmtree(disk(sweep).stages)
    code, _, err = run("resume", "out", "--engine", "inline")
    assert code == 0, err
    assert files(disk(trial).ledger) == ledger
    told = (
        "bits",
        "yes",
        "no",
        "guess_accuracy",
        "labelled",
        "negative_only",
        "val_top1",
        "test_top1_last",
        "key",
        "ledger",
    )
    assert [[record[name] for name in told] for record in read_stages(trial)] == [
        [record[name] for name in told] for record in before
    ]


def test_a_stage_is_trained_by_one_trial_whatever_died_in_between(
    sweep: SweepLayout, run: Run
) -> None:
    """Whether it was trained or shared is in the committed stage, so that a record made later says
    the same.
    """
    records = [
        record
        for candidate in load_candidates(sweep)
        for record in read_stages(sweep.trial(candidate.trials[0].id))
    ]
    assert [record["trained"] for record in records].count(True) == len(
        {record["key"] for record in records}
    )


# Results are tied to their data


@pytest.mark.parametrize("verb", ["sweep", "resume"])
def test_changed_data_is_refused_and_nothing_changes(
    whole: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    shutil.copy(whole / "spec.yaml", tmp_path)
    command = ["sweep", "spec.yaml", "--engine", "inline", "--out", "out"]
    assert run(*command)[0] == 0
    before = files(tmp_path / "out")
    write_data(tmp_path / "features.npz", mended=True)
    code, _, err = run(*(command if verb == "sweep" else ["resume", "out", "--engine", "inline"]))
    assert code == 2
    assert "is not what this sweep was begun with" in err and "features.npz" in err
    assert files(tmp_path / "out") == before
    # The same command elsewhere is another sweep of the same trials, by name.
    assert run(*command[:-1], "other")[0] == 0
    assert [c.id for c in load_candidates(SweepLayout.at("other"))] == [
        c.id for c in load_candidates(SweepLayout.at("out"))
    ]


def test_a_ledger_names_its_data(sweep: SweepLayout, run: Run) -> None:
    """One ledger cannot hold two truths, whatever led up to it."""
    trial = next(t for c in load_candidates(sweep) for t in c.trials if "two rounds" in t.cases)
    data = prepare(trial.config.dataset.source)
    open_pool(trial, data, trial_of(sweep, "two rounds").segments).open()
    with pytest.raises(LedgerError, match="was begun with other data"):
        open_pool(
            trial,
            replace(data, labelled_fingerprint="0" * 64),
            trial_of(sweep, "two rounds").segments,
        ).open()


def test_a_sweep_means_the_data_it_was_begun_with_from_any_folder(
    sweep: SweepLayout, tmp_path: Path, run: Run
) -> None:
    """Another file of that name in the working folder is not taken; reading results needs no
    data.
    """
    trial = trial_of(sweep, "two rounds")
    before = files(disk(trial).root)
    shutil.rmtree(disk(trial).stages)
    write_data(tmp_path / "features.npz", seed=1)
    assert run("resume", "out", "--engine", "inline")[0] == 0
    assert files(disk(trial).root) == before


def test_results_are_read_without_the_data_and_moved_data_is_found_by_its_fingerprint(
    whole: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    shutil.copy(whole / "spec.yaml", tmp_path)
    assert run("sweep", "spec.yaml", "--engine", "inline", "--out", "out")[0] == 0
    (tmp_path / "features.npz").rename(tmp_path / "moved.npz")
    for words in (["status", "out"], ["report", "out"], ["ledger", "verify", "out"]):
        assert run(*words)[0] == 0
    code, _, err = run("resume", "out", "--engine", "inline")
    assert code == 2 and "features.npz" in err
    write_data(tmp_path / "wrong.npz", seed=1)
    code, _, err = run("resume", "out", "--engine", "inline", "--set", "dataset.path=wrong.npz")
    assert code == 2 and "is not what this sweep was begun with" in err
    code, _, err = run("resume", "out", "--engine", "inline", "--set", "dataset.path=moved.npz")
    assert code == 0, err
    # And it is remembered.
    assert run("resume", "out", "--engine", "inline")[0] == 0


def test_two_paths_of_the_same_data_are_one_sweep(
    whole: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.npz", "b.npz"):
        write_data(tmp_path / name)
    shutil.copy(whole / "spec.yaml", tmp_path)
    assert (
        run(
            "sweep",
            "spec.yaml",
            "--engine",
            "inline",
            "--out",
            "out",
            "--set",
            "dataset.path=a.npz",
        )[0]
        == 0
    )
    before = files(tmp_path / "out" / "trials")
    assert (
        run(
            "sweep",
            "spec.yaml",
            "--engine",
            "inline",
            "--out",
            "out",
            "--set",
            "dataset.path=b.npz",
        )[0]
        == 0
    )
    assert files(tmp_path / "out" / "trials") == before


def test_a_sweeps_ledgers_are_listed_and_each_can_be_shown(sweep: SweepLayout, run: Run) -> None:
    code, out, said = run("ledger", "show", "out")
    assert code == 0, said
    listed = [line.split("  ") for line in out.splitlines()]
    assert [(seed, name) for _, seed, name in listed] == [
        ("seed 0", "one round"),
        ("seed 0", "two rounds"),
    ]
    for folder, _, _ in listed:
        assert run("ledger", "show", folder)[0] == 0
    trials = json.loads(run("ledger", "show", "out", "--json")[1])["trials"]
    assert [trial["trial"] for trial in trials] == [folder for folder, _, _ in listed]
