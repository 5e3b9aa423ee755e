"""Damage that a finished sweep must notice is said, and nothing of it is reported."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweeps import seal
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import encode_object, parse_object
from tests.helpers.on_disk import disk
from tests.helpers.small_sweep import Run, files, trial_of

# Damage that a finished sweep must notice


def _cut_ledger(sweep: SweepLayout) -> Path:
    last = sorted(disk(trial_of(sweep, "two rounds")).ledger.glob("*.parquet"))[-1]
    last.unlink()
    return last


def _no_ledger(sweep: SweepLayout) -> Path:
    folder = disk(trial_of(sweep, "two rounds")).ledger
    shutil.rmtree(folder)
    return folder


def _swapped(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _swapped_ledgers(sweep: SweepLayout) -> Path:
    one, other = trial_of(sweep, "one round"), trial_of(sweep, "two rounds")
    _swapped(disk(one).ledger, disk(other).ledger)
    return disk(one).ledger


def _swapped_trials(sweep: SweepLayout) -> Path:
    one, other = trial_of(sweep, "one round"), trial_of(sweep, "two rounds")
    _swapped(disk(one).root, disk(other).root)
    return disk(one).root


def _swapped_stages(sweep: SweepLayout) -> Path:
    trial = trial_of(sweep, "two rounds")
    _swapped(disk(trial).stage(1), disk(trial).stage(2))
    return disk(trial).stage(1)


def _no_candidate(sweep: SweepLayout) -> Path:
    disk(sweep).candidate(1).unlink()
    return disk(sweep).candidates


def _changed_digit(sweep: SweepLayout) -> Path:
    path = disk(trial_of(sweep, "two rounds")).stage(2)
    record = parse_object(path.read_bytes())
    path.write_text(path.read_text().replace(json.dumps(record["test_top1_last"]), "160.0", 1))
    return path


def _changed_digit_and_checksum(sweep: SweepLayout) -> Path:
    """By somebody who knows how records are made: the seal remembers."""
    path = disk(trial_of(sweep, "two rounds")).stage(2)
    record = parse_object(path.read_bytes())
    path.write_bytes(encode_object(record | {"test_top1_last": 99.0}))
    return path


def _changed_resolved(sweep: SweepLayout) -> Path:
    disk(sweep).resolved.write_text(
        disk(sweep).resolved.read_text().replace("epochs: 1", "epochs: 2")
    )
    return disk(sweep).resolved


def _changed_manifest(sweep: SweepLayout) -> Path:
    disk(sweep).manifest.write_text(disk(sweep).manifest.read_text().replace("cpu", "gpu"))
    return disk(sweep).manifest


def _no_manifest(sweep: SweepLayout) -> Path:
    disk(sweep).manifest.unlink()
    return disk(sweep).manifest


DAMAGES = (
    _cut_ledger,
    _no_ledger,
    _swapped_ledgers,
    _swapped_trials,
    _swapped_stages,
    _no_candidate,
    _changed_digit,
    _changed_digit_and_checksum,
    _changed_resolved,
    _changed_manifest,
    _no_manifest,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damage_is_said_and_nothing_is_reported_or_gone_on_with(
    sweep: SweepLayout, run: Run, damage: Callable[[SweepLayout], Path]
) -> None:
    victim = damage(sweep)
    before = files(disk(sweep).root)
    for words in (["report"], ["resume", "--engine", "inline"], ["ledger", "verify"], ["status"]):
        code, out, err = run(
            *words[:1],
            *(["verify"] if "verify" in words else []),
            "out",
            *(words[1:] if words[0] == "resume" else []),
        )
        assert code == 2, f"{words}: {out}{err}"
        assert victim.name in out + err or str(victim) in out + err
        if words == ["report"]:
            assert "two rounds" not in out
    assert files(disk(sweep).root) == before


def test_a_lost_last_candidate_of_a_search_and_a_lost_stage_are_noticed(
    sweep: SweepLayout, run: Run
) -> None:
    """Neither leaves a gap: only the seal of the finished run knows of them."""
    lost = disk(trial_of(sweep, "two rounds")).stage(2)
    lost.unlink()
    code, _, err = run("report", "out")
    assert code == 2 and "0002.json: missing" in err
    assert run("resume", "out", "--engine", "inline")[0] == 0
    assert run("report", "out")[0] == 0


def test_a_whole_sweep_verifies_and_its_checksum_is_that_of_its_records(
    sweep: SweepLayout, run: Run
) -> None:
    code, out, _ = run("ledger", "verify", "out", "--json")
    found = json.loads(out)
    assert (code, found["problems"], found["trials"]) == (0, [], 2)
    assert found["sha256"] == seal.check(sweep).sha256
    for artefact in disk(sweep).stages.glob("*/scores-*.guess.npy"):
        content = artefact.read_bytes()
        artefact.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        code, _, err = run("ledger", "verify", "out")
        assert code == 2 and artefact.name in err
        artefact.write_bytes(content)


def test_a_trained_stage_that_is_gone_is_said_and_is_no_damage(
    sweep: SweepLayout, run: Run
) -> None:
    """Results stand without it; to remove a damaged one, as its message says, ends the matter."""
    victim = sorted(disk(sweep).stages.glob("*/record.json"))[0]
    victim.write_text("{")
    code, _, err = run("ledger", "verify", "out")
    assert code == 2 and f"Remove the folder {victim.parent}" in err
    shutil.rmtree(victim.parent)
    code, out, err = run("ledger", "verify", "out")
    assert code == 0 and "whole" in out and str(victim) in err


def test_a_lost_seal_is_said_and_written_anew(sweep: SweepLayout, run: Run) -> None:
    before = disk(sweep).seal.read_bytes()
    disk(sweep).seal.unlink()
    for words in (["report", "out"], ["ledger", "verify", "out"]):
        code, _, err = run(*words)
        assert code == 2 and "seal.json: missing" in err and "orchestrate resume" in err
    assert run("resume", "out", "--engine", "inline")[0] == 0
    assert disk(sweep).seal.read_bytes() == before
    assert run("report", "out")[0] == 0


def test_what_is_left_of_a_sweep_is_not_taken_for_none(
    sweep: SweepLayout, whole: Path, run: Run
) -> None:
    disk(sweep).resolved.unlink()
    again = [
        "sweep",
        whole / "spec.yaml",
        "--set",
        f"dataset.path={whole / 'features.npz'}",
        "--out",
        "out",
        "--engine",
        "inline",
    ]
    for words in (["report", "out"], ["resume", "out"], ["ledger", "verify", "out"], again):
        code, _, err = run(*words)
        assert code == 2 and "resolved.yaml: missing" in err and "restore it from a copy" in err


def test_a_file_and_a_pipe_are_no_sweep_and_no_record(sweep: SweepLayout, run: Run) -> None:
    for verb in ("status", "report", "resume", "retry"):
        code, _, err = run(verb, disk(sweep).spec)
        assert code == 2 and "is a file. Name the folder" in err
    path = disk(sweep).candidate(0)
    path.unlink()
    os.mkfifo(path)
    code, _, err = run("report", "out")
    assert code == 2 and "000000.json: damaged (it is not a file)" in err


def test_an_engine_without_ray_takes_no_address(sweep: SweepLayout, run: Run) -> None:
    for words in (["--address", "127.0.0.1:1"], ["--local"]):
        code, _, err = run("resume", "out", "--engine", "inline", *words)
        assert code == 2 and words[0] in err


def test_a_folder_written_with_dots_leaves_no_other_behind(
    whole: Path, tmp_path: Path, run: Run
) -> None:
    data = f"dataset.path={whole / 'features.npz'}"
    assert (
        run(
            "sweep",
            whole / "spec.yaml",
            "--engine",
            "inline",
            "--out",
            tmp_path / "new" / ".." / "x",
            "--set",
            data,
        )[0]
        == 0
    )
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
