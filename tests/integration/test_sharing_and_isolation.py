"""Sharing changes no result; what nobody asked changes no result; test labels decide nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from orchestrator.commands.replay import replay
from orchestrator.storage.user_files import cache_root
from tests.helpers.dying import run_cli
from tests.helpers.on_disk import trial_in
from tests.helpers.sweeps import ONE_TRIAL_SPEC, TINY_SPEC, outcome_of, read_stages, written

pytestmark = pytest.mark.slow

SWEEP = ["sweep", "spec.yaml", "--engine", "inline", "--out", "out"]


def swept(folder: Path, spec: str, *overrides: str) -> Path:
    written(folder, spec)
    arguments = [part for override in overrides for part in ("--set", override)]
    assert run_cli([*SWEEP, *arguments], folder) == 0, (folder / "log").read_text()
    return folder / "out"


def trained(sweep: Path) -> tuple[int, int]:
    """Stages trained, and stages found already trained."""
    records = [
        record for trial in sweep.glob("trials/*") for record in read_stages(trial_in(trial))
    ]
    return sum(record["trained"] for record in records), sum(
        not record["trained"] for record in records
    )


def test_sharing_on_and_off_give_the_same_ledgers_guesses_and_accuracies(tmp_path: Path) -> None:
    shared = swept(tmp_path / "shared", TINY_SPEC)
    alone = swept(tmp_path / "alone", TINY_SPEC, "resources.share_stages=false")
    assert outcome_of(shared) == outcome_of(alone)
    # Per seed: the full-labels stage, M0 of both schedules once, then two stages each.
    assert trained(shared) == (12, 2)
    assert trained(alone) == (14, 0)


def poisoned_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared digits, which every later run uses; its labels may be spoilt. Returns
    the folder of labels.
    """
    copy = folder / "cache"
    shutil.copytree(cache_root(), copy)
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(copy))
    (found,) = (copy / "labels").glob("digits-*")
    return found


def test_hidden_labels_of_never_asked_images_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = swept(tmp_path / "first", ONE_TRIAL_SPEC)
    (trial,) = (first / "trials").iterdir()
    state = replay(trial / "ledger")
    inputs = state.training_inputs()
    touched = np.concatenate([inputs.label_ids, inputs.negative_ids, inputs.validation_ids])
    labels_file = poisoned_cache(tmp_path, monkeypatch) / "train.npy"
    labels = np.load(labels_file)
    never = np.setdiff1d(np.arange(labels.size), touched)
    labels[never] = (labels[never] + 1 + np.arange(never.size) % 9) % 10
    np.save(labels_file, labels)
    # The initial labels are drawn by class, which looks at labels; they are bought already, so the
    # second run starts from them.
    second = written(tmp_path / "second", ONE_TRIAL_SPEC)
    ledger = second / "out" / "trials" / trial.name / "ledger"
    assert run_cli(SWEEP, second, die_at=1) == -9
    ledger.mkdir(parents=True)
    shutil.copy(trial / "ledger" / "0000.parquet", ledger)
    for name in ("spec.yaml", "manifest.json", "resolved.yaml"):
        shutil.copy(first / name, second / "out")
    shutil.copytree(first / "candidates", second / "out" / "candidates", dirs_exist_ok=True)
    assert run_cli(["resume", "out", "--engine", "inline"], second) == 0, (
        second / "log"
    ).read_text()
    assert outcome_of(second / "out") == outcome_of(first)
    # And the spoilt labels are what was read: initial labels drawn from them are others.
    assert outcome_of(swept(tmp_path / "third", ONE_TRIAL_SPEC)) != outcome_of(first)


def test_noise_in_the_test_labels_changes_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = swept(tmp_path / "first", ONE_TRIAL_SPEC)
    labels_file = poisoned_cache(tmp_path, monkeypatch) / "test.npy"
    labels = np.load(labels_file)
    np.save(labels_file, np.random.default_rng(0).permutation(labels))
    second = swept(tmp_path / "second", ONE_TRIAL_SPEC)
    before, after = outcome_of(first), outcome_of(second)
    measured = ("test_top1_last", "test_top1_at_best_val", "test_correct_sha256")
    changed = 0
    for trial in before:
        assert before[trial]["ledger"] == after[trial]["ledger"]
        assert before[trial]["guesses"] == after[trial]["guesses"]
        for one, other in zip(before[trial]["records"], after[trial]["records"], strict=True):
            assert {k: v for k, v in one.items() if k not in measured} == {
                k: v for k, v in other.items() if k not in measured
            }
            changed += one["test_top1_last"] != other["test_top1_last"]
    assert changed, "the noise reached no number, so this test shows nothing"


def test_a_diverging_trial_fails_alone_and_retry_runs_it_again(tmp_path: Path) -> None:
    spec = TINY_SPEC.replace(
        "  two stages, base: {method.nls: false}\n", "  hopeless: {method.learning_rate: 900}\n"
    )
    folder = written(tmp_path, spec)
    assert run_cli(SWEEP, folder) == 1, (folder / "log").read_text()
    errors = {
        path.parent.name: json.loads(path.read_text())
        for path in folder.glob("out/trials/*/error.json")
    }
    assert len(errors) == 2
    for error in errors.values():
        assert error["kind"] == "Diverged"
        assert "loss" in error["message"]
    assert sum(1 for path in folder.glob("out/trials/*/stages/0000.json")) == 4
    log = (folder / "log").read_text()
    assert "2 trial(s) diverged" in log
    assert "Traceback" not in log
    assert run_cli(["retry", "out", "--engine", "inline"], folder) == 1
    assert "2 failed trial(s) to run again" in (folder / "log").read_text()
