"""What a sweep's folder says is what was bought: records are made anew right, tied to their data and to each other, and damage is said."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator import cli, seal
from orchestrator.candidates import load_candidates
from orchestrator.layout import SweepLayout, TrialLayout
from orchestrator.records import encode_object, parse_object
from orchestrator.stage_records import read_stages
from tests.integration.dying import run_cli

SPEC = """\
name: small
dataset: {name: features, path: features.npz, validation: {from: split, per_class: 3}}
budget: {bits: 60}
base:
  method: {name: mean_teacher, backbone: linear, consistency_weight: 1, epochs: 1, batch_size: 16}
  schedule: {initial_labels_per_class: 2, split: [0.5, 0.5]}
  query: {strategy: random}
cases:
  one round: {schedule.split: [1.0]}
  two rounds: {}
seeds: [0]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(word) for word in words])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def write_data(path: Path, *, mended: bool = False, seed: int = 0) -> None:
    """Four classes of vectors; `mended`: one label is another."""
    rng = np.random.default_rng(seed)
    y = np.arange(120) % 4
    x = rng.normal(size=(120, 6)).astype(np.float32) + 4 * np.eye(6, dtype=np.float32)[y]
    if mended:
        y[7] = (y[7] + 1) % 4
    np.savez(path, x=x, y=y)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, the spec and a finished sweep `out`."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder / "features.npz")
    (folder / "spec.yaml").write_text(SPEC)
    assert run_cli(["sweep", "spec.yaml", "--engine", "inline", "--out", "out"], folder) == 0, (folder / "log").read_text()
    return folder


@pytest.fixture
def sweep(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepLayout:
    """A copy of the finished sweep, in the working folder; its data is where it was."""
    shutil.copytree(whole / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    return SweepLayout(Path("out"))


def trial_of(sweep: SweepLayout, case: str) -> TrialLayout:
    (found,) = [candidate for candidate in load_candidates(sweep) if case in candidate.cases]
    return sweep.trial(found.trials[0].id)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Records made anew


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_records_made_anew_are_those_that_were_there(sweep: SweepLayout, run: Run, gone: tuple[int, ...]) -> None:
    trial = trial_of(sweep, "two rounds")
    before = files(trial.root)
    bits = [record["bits"]["total"] for record in read_stages(trial)]
    assert len(set(bits)) == 3, "copies of one record would not be noticed"
    for stage in gone:
        trial.stage(stage).unlink()
    code, _, err = run("resume", "out", "--engine", "inline")
    assert code == 0, err
    assert files(trial.root) == before


def test_records_made_anew_without_the_trained_stages_cost_the_same_bits(sweep: SweepLayout, run: Run) -> None:
    """The stages are trained again; what was asked is in the ledger and asked of nobody."""
    trial = trial_of(sweep, "two rounds")
    before, ledger = read_stages(trial), files(trial.ledger)
    shutil.rmtree(trial.stages)
    shutil.rmtree(sweep.stage_store)
    code, _, err = run("resume", "out", "--engine", "inline")
    assert code == 0, err
    assert files(trial.ledger) == ledger
    told = ("bits", "yes", "no", "guess_accuracy", "labelled", "negative_only", "val_top1", "test_top1_last", "key", "ledger")
    assert [[record[name] for name in told] for record in read_stages(trial)] == [[record[name] for name in told] for record in before]


def test_a_stage_is_trained_by_one_trial_whatever_died_in_between(sweep: SweepLayout, run: Run) -> None:
    """Whether it was trained or shared is in the committed stage, so that a record made later says the same."""
    records = [record for candidate in load_candidates(sweep) for record in read_stages(sweep.trial(candidate.trials[0].id))]
    assert [record["trained"] for record in records].count(True) == len({record["key"] for record in records})


# Results are tied to their data


@pytest.mark.parametrize("verb", ["sweep", "resume"])
def test_changed_data_is_refused_and_nothing_changes(whole: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
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
    assert [c.id for c in load_candidates(SweepLayout(Path("other")))] == [c.id for c in load_candidates(SweepLayout(Path("out")))]


def test_a_ledger_names_its_data(sweep: SweepLayout, run: Run) -> None:
    """One ledger cannot hold two truths, whatever led up to it."""
    from orchestrator.ledger import LedgerError
    from orchestrator.trial import open_pool
    from tests.integration.test_records import trial_of as of

    trial = next(t for c in load_candidates(sweep) for t in c.trials if "two rounds" in t.cases)
    from dataclasses import replace

    from orchestrator.datasets import prepare

    data = prepare(trial.config.dataset)
    open_pool(trial, data, of(sweep, "two rounds").ledger).open()
    with pytest.raises(LedgerError, match="was begun with other data"):
        open_pool(trial, replace(data, labelled_fingerprint="0" * 64), of(sweep, "two rounds").ledger).open()


def test_a_sweep_means_the_data_it_was_begun_with_from_any_folder(sweep: SweepLayout, tmp_path: Path, run: Run) -> None:
    """Another file of that name in the working folder is not taken; reading results needs no data."""
    trial = trial_of(sweep, "two rounds")
    before = files(trial.root)
    shutil.rmtree(trial.stages)
    write_data(tmp_path / "features.npz", seed=1)
    assert run("resume", "out", "--engine", "inline")[0] == 0
    assert files(trial.root) == before


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


def test_two_paths_of_the_same_data_are_one_sweep(whole: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.npz", "b.npz"):
        write_data(tmp_path / name)
    shutil.copy(whole / "spec.yaml", tmp_path)
    assert run("sweep", "spec.yaml", "--engine", "inline", "--out", "out", "--set", "dataset.path=a.npz")[0] == 0
    before = files(tmp_path / "out" / "trials")
    assert run("sweep", "spec.yaml", "--engine", "inline", "--out", "out", "--set", "dataset.path=b.npz")[0] == 0
    assert files(tmp_path / "out" / "trials") == before


# Damage that a finished sweep must notice


def _cut_ledger(sweep: SweepLayout) -> Path:
    last = sorted(trial_of(sweep, "two rounds").ledger.glob("*.parquet"))[-1]
    last.unlink()
    return last


def _no_ledger(sweep: SweepLayout) -> Path:
    folder = trial_of(sweep, "two rounds").ledger
    shutil.rmtree(folder)
    return folder


def _swapped(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _swapped_ledgers(sweep: SweepLayout) -> Path:
    one, other = trial_of(sweep, "one round"), trial_of(sweep, "two rounds")
    _swapped(one.ledger, other.ledger)
    return one.ledger


def _swapped_trials(sweep: SweepLayout) -> Path:
    one, other = trial_of(sweep, "one round"), trial_of(sweep, "two rounds")
    _swapped(one.root, other.root)
    return one.root


def _swapped_stages(sweep: SweepLayout) -> Path:
    trial = trial_of(sweep, "two rounds")
    _swapped(trial.stage(1), trial.stage(2))
    return trial.stage(1)


def _no_candidate(sweep: SweepLayout) -> Path:
    sweep.candidate(1).unlink()
    return sweep.candidates


def _changed_digit(sweep: SweepLayout) -> Path:
    path = trial_of(sweep, "two rounds").stage(2)
    record = parse_object(path.read_bytes())
    path.write_text(path.read_text().replace(json.dumps(record["test_top1_last"]), "160.0", 1))
    return path


def _changed_digit_and_checksum(sweep: SweepLayout) -> Path:
    """By somebody who knows how records are made: the seal remembers."""
    path = trial_of(sweep, "two rounds").stage(2)
    record = parse_object(path.read_bytes())
    path.write_bytes(encode_object(record | {"test_top1_last": 99.0}))
    return path


def _changed_resolved(sweep: SweepLayout) -> Path:
    sweep.resolved.write_text(sweep.resolved.read_text().replace("epochs: 1", "epochs: 2"))
    return sweep.resolved


def _changed_manifest(sweep: SweepLayout) -> Path:
    sweep.manifest.write_text(sweep.manifest.read_text().replace("cpu", "gpu"))
    return sweep.manifest


def _no_manifest(sweep: SweepLayout) -> Path:
    sweep.manifest.unlink()
    return sweep.manifest


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
def test_damage_is_said_and_nothing_is_reported_or_gone_on_with(sweep: SweepLayout, run: Run, damage: Callable[[SweepLayout], Path]) -> None:
    victim = damage(sweep)
    before = files(sweep.root)
    for words in (["report"], ["resume", "--engine", "inline"], ["ledger", "verify"], ["status"]):
        code, out, err = run(*words[:1], *(["verify"] if "verify" in words else []), "out", *(words[1:] if words[0] == "resume" else []))
        assert code == 2, f"{words}: {out}{err}"
        assert victim.name in out + err or str(victim) in out + err
        if words == ["report"]:
            assert "two rounds" not in out
    assert files(sweep.root) == before


def test_a_lost_last_candidate_of_a_search_and_a_lost_stage_are_noticed(sweep: SweepLayout, run: Run) -> None:
    """Neither leaves a gap: only the seal of the finished run knows of them."""
    lost = trial_of(sweep, "two rounds").stage(2)
    lost.unlink()
    code, _, err = run("report", "out")
    assert code == 2 and "0002.json: missing" in err
    assert run("resume", "out", "--engine", "inline")[0] == 0
    assert run("report", "out")[0] == 0


def test_a_whole_sweep_verifies_and_its_checksum_is_that_of_its_records(sweep: SweepLayout, run: Run) -> None:
    code, out, _ = run("ledger", "verify", "out", "--json")
    found = json.loads(out)
    assert (code, found["problems"], found["trials"]) == (0, [], 2)
    assert found["sha256"] == seal.check(sweep).sha256
    for artefact in sweep.stage_store.glob("*/scores-*.npz"):
        content = artefact.read_bytes()
        artefact.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        code, _, err = run("ledger", "verify", "out")
        assert code == 2 and artefact.name in err
        artefact.write_bytes(content)


def test_a_trained_stage_that_is_gone_is_said_and_is_no_damage(sweep: SweepLayout, run: Run) -> None:
    """Results stand without it; to remove a damaged one, as its message says, ends the matter."""
    victim = sorted(sweep.stage_store.glob("*/record.json"))[0]
    victim.write_text("{")
    code, _, err = run("ledger", "verify", "out")
    assert code == 2 and f"Remove the folder {victim.parent}" in err
    shutil.rmtree(victim.parent)
    code, out, err = run("ledger", "verify", "out")
    assert code == 0 and "whole" in out and str(victim) in err


def test_a_lost_seal_is_said_and_written_anew(sweep: SweepLayout, run: Run) -> None:
    before = sweep.seal.read_bytes()
    sweep.seal.unlink()
    for words in (["report", "out"], ["ledger", "verify", "out"]):
        code, _, err = run(*words)
        assert code == 2 and "seal.json: missing" in err and "orchestrate resume" in err
    assert run("resume", "out", "--engine", "inline")[0] == 0
    assert sweep.seal.read_bytes() == before
    assert run("report", "out")[0] == 0


def test_what_is_left_of_a_sweep_is_not_taken_for_none(sweep: SweepLayout, whole: Path, run: Run) -> None:
    sweep.resolved.unlink()
    again = ["sweep", whole / "spec.yaml", "--set", f"dataset.path={whole / 'features.npz'}", "--out", "out", "--engine", "inline"]
    for words in (["report", "out"], ["resume", "out"], ["ledger", "verify", "out"], again):
        code, _, err = run(*words)
        assert code == 2 and "resolved.yaml: missing" in err and "restore it from a copy" in err


def test_a_file_and_a_pipe_are_no_sweep_and_no_record(sweep: SweepLayout, run: Run) -> None:
    for verb in ("status", "report", "resume", "retry"):
        code, _, err = run(verb, sweep.spec)
        assert code == 2 and "is a file. Name the folder" in err
    path = sweep.candidate(0)
    path.unlink()
    os.mkfifo(path)
    code, _, err = run("report", "out")
    assert code == 2 and "000000.json: damaged (it is not a file)" in err


def test_an_engine_without_ray_takes_no_address(sweep: SweepLayout, run: Run) -> None:
    for words in (["--address", "127.0.0.1:1"], ["--local"]):
        code, _, err = run("resume", "out", "--engine", "inline", *words)
        assert code == 2 and words[0] in err


def test_a_folder_written_with_dots_leaves_no_other_behind(whole: Path, tmp_path: Path, run: Run) -> None:
    data = f"dataset.path={whole / 'features.npz'}"
    assert run("sweep", whole / "spec.yaml", "--engine", "inline", "--out", tmp_path / "new" / ".." / "x", "--set", data)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


# Sweeps of 0.1.0


def as_of_0_1_0(sweep: SweepLayout) -> None:
    """Rewrites a sweep in the form that 0.1.0 gave it."""
    import yaml

    candidates = load_candidates(sweep)
    rows = [parse_object(path.read_bytes()) for path in sorted(sweep.candidates.glob("*.json"))]
    plain = ("candidate", "cases", "settings", "trials")
    sweep.candidate_lines.write_text("".join(json.dumps({key: row[key] for key in plain}) + "\n" for row in rows))
    for candidate in candidates:
        files = sweep.trial(candidate.trials[0].id)
        later = ("trial", "parent", "data", "ledger", "sha256", "test_correct_sha256")
        lines = [{key: value for key, value in record.items() if key not in later} for record in read_stages(files)]
        files.stage_lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
        shutil.rmtree(files.stages)
    resolved = yaml.safe_load(sweep.resolved.read_text())
    for key in ("schema", "settings_schema", "listed", "data", "manifest_sha256", "sha256"):
        del resolved[key]
    sweep.resolved.write_text(yaml.safe_dump(resolved))
    shutil.rmtree(sweep.candidates)
    sweep.seal.unlink()


def test_a_sweep_of_0_1_0_is_reported_and_verified_and_not_gone_on_with(sweep: SweepLayout, whole: Path, run: Run) -> None:
    _, report, _ = run("report", "out", "--json")
    as_of_0_1_0(sweep)
    code, out, _ = run("report", "out", "--json")
    assert code == 0
    told = ("case", "n", "bits", "stages", "val_top1", "test_top1_last", "yes", "no")
    assert [[row[key] for key in told] for row in json.loads(out)["rows"]] == [[row[key] for key in told] for row in json.loads(report)["rows"]]
    assert run("status", "out")[0] == 0
    assert run("ledger", "verify", "out")[0] == 0
    before = files(sweep.root)
    for words in (["resume", "out"], ["retry", "out"], ["sweep", "out/spec.yaml", "--out", "out", "--set", f"dataset.path={whole / 'features.npz'}"]):
        code, _, err = run(*words, "--engine", "inline")
        assert code == 2 and "0.1.0" in err
    code, _, err = run("extend", "out", "-n", "2")
    assert code == 2
    assert files(sweep.root) == before
    lines = sweep.candidate_lines.read_text().splitlines(keepends=True)
    sweep.candidate_lines.write_text("".join(lines[:-1]))
    code, out, err = run("report", "out")
    assert code == 2 and "candidates.jsonl" in err and "one round" not in out


# Ids from files never lead out of the folder


@pytest.mark.parametrize("name", ["../../../evil", "/etc", "a/b", "..", "", "x" * 65, "a\x00b"])
def test_an_id_that_leads_out_of_its_folder_is_refused(sweep: SweepLayout, tmp_path: Path, run: Run, name: str) -> None:
    path = sweep.candidate(0)
    row = parse_object(path.read_bytes())
    row["trials"][0]["id"] = name
    path.write_bytes(encode_object(row))
    sweep.seal.unlink()
    before = files(tmp_path)
    for words in (["report", "out"], ["resume", "out", "--engine", "inline"], ["ledger", "verify", "out"]):
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
    code, _, _ = run("sweep", spec, "--out", tmp_path / "new", "--set", data, "--address", "127.0.0.1:1")
    assert code == 2
    assert files(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_refused_extension_or_resume_changes_nothing(sweep: SweepLayout, run: Run) -> None:
    before = files(sweep.root)
    assert run("extend", "out", "-n", "1", "--engine", "inline")[0] == 2
    assert run("resume", "out", "--set", "method.epochs=3", "--engine", "inline")[0] == 2
    assert run("resume", "out", "--address", "127.0.0.1:1")[0] == 2
    assert files(sweep.root) == before


# Disks


def test_leftovers_of_dead_writers_are_removed(sweep: SweepLayout, run: Run) -> None:
    """A full disk must not stay full of halves."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    from orchestrator.storage import _host

    trial = trial_of(sweep, "two rounds")
    halves = [folder / f".aside-{_host()}-{pid}-0a0a0a" for folder in (sweep.root, sweep.candidates, trial.root, trial.stages, trial.ledger)]
    stage = next(iter(sweep.stage_store.iterdir()))
    halves += [stage / "epoch-00007-0a0a0a0a.ckpt.tmp", stage / "scores-0a0a0a0a.npz", stage / f".aside-{_host()}-{pid}-0a0a0a"]
    alive = sweep.root / f".aside-{_host()}-1-0a0a0a"
    for path in (*halves, alive):
        path.write_bytes(b"half")
    assert run("resume", "out", "--engine", "inline")[0] == 0
    assert not [path for path in halves if path.exists()]
    assert alive.exists()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self/ns/user").exists(), reason="needs a user who may be refused")
def test_a_read_only_sweep_is_reported_on_the_terminal(sweep: SweepLayout, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from orchestrator import report, storage

    def refuse(path: Path, data: bytes, *, replace: bool) -> bool:
        raise storage.StorageError(f"{path}: cannot be written: {os.strerror(errno.EROFS)}")

    monkeypatch.setattr(report, "commit_file", refuse)
    code, out, err = run("report", "out")
    assert code == 0
    assert "two rounds" in out
    assert "the report was not written" in err and "report.html" in err and os.strerror(errno.EROFS) in err


def test_modes_of_records_are_plain(sweep: SweepLayout) -> None:
    """Whoever may read the sweep may read its records."""
    for path in seal.sealed_files(sweep):
        assert stat.S_IMODE(path.stat().st_mode) & 0o444
