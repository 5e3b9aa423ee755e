"""Sweeps of 0.1.0, ids that lead out of their folder, commands that are refused, and disks that
fail: nothing changes that should not.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import yaml

from orchestrator.storage import files as storage
from orchestrator.storage.folder import FolderStore
from orchestrator.sweeps import seal
from orchestrator.sweeps.candidates import load_candidates
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import encode_object, parse_object
from tests.helpers.on_disk import disk
from tests.helpers.small_sweep import Run, files, trial_of
from tests.helpers.sweeps import read_stages

# Sweeps of 0.1.0


def as_of_0_1_0(sweep: SweepLayout) -> None:
    """Rewrites a sweep in the form that 0.1.0 gave it."""
    candidates = load_candidates(sweep)
    rows = [
        parse_object(path.read_bytes()) for path in sorted(disk(sweep).candidates.glob("*.json"))
    ]
    plain = ("candidate", "cases", "settings", "trials")
    disk(sweep).candidate_lines.write_text(
        "".join(json.dumps({key: row[key] for key in plain}) + "\n" for row in rows)
    )
    for candidate in candidates:
        files = sweep.trial(candidate.trials[0].id)
        later = ("trial", "parent", "data", "ledger", "sha256", "test_correct_sha256")
        lines = [
            {key: value for key, value in record.items() if key not in later}
            for record in read_stages(files)
        ]
        disk(files).stage_lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
        shutil.rmtree(disk(files).stages)
    resolved = yaml.safe_load(disk(sweep).resolved.read_text())
    for key in ("schema", "settings_schema", "listed", "data", "manifest_sha256", "sha256"):
        del resolved[key]
    disk(sweep).resolved.write_text(yaml.safe_dump(resolved))
    shutil.rmtree(disk(sweep).candidates)
    disk(sweep).seal.unlink()


def test_a_sweep_of_0_1_0_is_reported_and_verified_and_not_gone_on_with(
    sweep: SweepLayout, whole: Path, run: Run
) -> None:
    _, report, _ = run("report", "out", "--json")
    as_of_0_1_0(sweep)
    code, out, _ = run("report", "out", "--json")
    assert code == 0
    told = ("case", "n", "bits", "stages", "val_top1", "test_top1_last", "yes", "no")
    assert [[row[key] for key in told] for row in json.loads(out)["rows"]] == [
        [row[key] for key in told] for row in json.loads(report)["rows"]
    ]
    assert run("status", "out")[0] == 0
    assert run("ledger", "verify", "out")[0] == 0
    before = files(disk(sweep).root)
    for words in (
        ["resume", "out"],
        ["retry", "out"],
        [
            "sweep",
            "out/spec.yaml",
            "--out",
            "out",
            "--set",
            f"dataset.path={whole / 'features.npz'}",
        ],
    ):
        code, _, err = run(*words, "--engine", "inline")
        assert code == 2 and "0.1.0" in err
    code, _, err = run("extend", "out", "-n", "2")
    assert code == 2
    assert files(disk(sweep).root) == before
    lines = disk(sweep).candidate_lines.read_text().splitlines(keepends=True)
    disk(sweep).candidate_lines.write_text("".join(lines[:-1]))
    code, out, err = run("report", "out")
    assert code == 2 and "candidates.jsonl" in err and "one round" not in out


# Ids from files never lead out of the folder


@pytest.mark.parametrize("name", ["../../../evil", "/etc", "a/b", "..", "", "x" * 65, "a\x00b"])
def test_an_id_that_leads_out_of_its_folder_is_refused(
    sweep: SweepLayout, tmp_path: Path, run: Run, name: str
) -> None:
    path = disk(sweep).candidate(0)
    row = parse_object(path.read_bytes())
    row["trials"][0]["id"] = name
    path.write_bytes(encode_object(row))
    disk(sweep).seal.unlink()
    before = files(tmp_path)
    for words in (
        ["report", "out"],
        ["resume", "out", "--engine", "inline"],
        ["ledger", "verify", "out"],
    ):
        code, _, err = run(*words)
        assert code == 2 and path.name in err
    assert files(tmp_path) == before


# Refused commands change nothing


def test_a_refused_out_is_left_as_it_was(whole: Path, tmp_path: Path, run: Run) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "spec.yaml").write_text("my own notes\n")
    before = files(tmp_path)
    spec, data = whole / "spec.yaml", f"dataset.path={whole / 'features.npz'}"
    for out in (mine, mine / "spec.yaml"):
        code, _, err = run("sweep", spec, "--engine", "inline", "--out", out, "--set", data)
        assert code == 2 and str(out) in err
    (mine / "driver.lock").touch()
    code, _, err = run("sweep", spec, "--engine", "inline", "--out", mine, "--set", data)
    assert code == 2 and "overwritten" in err
    (mine / "driver.lock").unlink()
    code, _, _ = run(
        "sweep", spec, "--out", tmp_path / "new", "--set", data, "--address", "127.0.0.1:1"
    )
    assert code == 2
    assert files(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_refused_extension_or_resume_changes_nothing(sweep: SweepLayout, run: Run) -> None:
    before = files(disk(sweep).root)
    assert run("extend", "out", "-n", "1", "--engine", "inline")[0] == 2
    assert run("resume", "out", "--set", "method.epochs=3", "--engine", "inline")[0] == 2
    assert files(disk(sweep).root) == before


# Disks


def test_leftovers_of_dead_writers_are_removed(sweep: SweepLayout, run: Run) -> None:
    """A full disk must not stay full of halves."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    trial = trial_of(sweep, "two rounds")
    halves = [
        folder / f".aside-{storage._host()}-{pid}-0a0a0a"
        for folder in (
            disk(sweep).root,
            disk(sweep).candidates,
            disk(trial).root,
            disk(trial).stages,
            disk(trial).ledger,
        )
    ]
    stage = next(iter(disk(sweep).stages.iterdir()))
    halves += [
        stage / "epoch-00007-0a0a0a0a.ckpt.tmp",
        stage / "scores-0a0a0a0a.guess.npy",
        stage / f".aside-{storage._host()}-{pid}-0a0a0a",
    ]
    alive = disk(sweep).root / f".aside-{storage._host()}-1-0a0a0a"
    for path in (*halves, alive):
        path.write_bytes(b"half")
    assert run("resume", "out", "--engine", "inline")[0] == 0
    assert not [path for path in halves if path.exists()]
    assert alive.exists()


def test_a_read_only_sweep_is_reported_on_the_terminal(
    sweep: SweepLayout, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: FolderStore, name: str, data: bytes, *, replace: bool = False) -> bool:
        raise storage.StorageError(
            f"{store.place(name)}: cannot be written: {os.strerror(errno.EROFS)}"
        )

    # What is there and whole is not written again, and needs no leave to write.
    monkeypatch.setattr(FolderStore, "put", refuse)
    assert run("report", "out")[2] == ""
    shutil.rmtree("out/report")
    code, out, err = run("report", "out")
    assert code == 0
    assert "two rounds" in out
    assert (
        "the report was not written" in err
        and "report.html" in err
        and os.strerror(errno.EROFS) in err
    )


def test_modes_of_records_are_plain(sweep: SweepLayout) -> None:
    """Whoever may read the sweep may read its records."""
    for name in seal.sealed_names(sweep):
        assert stat.S_IMODE(sweep.store.local(name).stat().st_mode) & 0o444
