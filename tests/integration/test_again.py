"""The same command given again where nothing is left to run: it answers from the records, and no
engine is started. What failed is run again where that is asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import write_error
from tests.helpers.small_sweep import Run, trial_of, write_data

SPEC = """\
name: again
dataset: {name: features, path: features.npz, validation: {from: split, per_class: 3}}
budget: {bits: 60}
base:
  method: {name: mean_teacher, backbone: linear, consistency_weight: 1, epochs: 1, batch_size: 16}
  schedule: {initial_labels_per_class: 2, split: [1.0]}
  query: {strategy: random}
cases:
  good: {}
  diverges: {method.learning_rate: 900}
seeds: [0]
"""


@pytest.fixture
def failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> SweepLayout:
    """A sweep of which one trial is finished and the other has failed, in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert run("sweep", "spec.yaml", "--engine", "inline", "--out", "out")[0] == 1
    return SweepLayout.at("out")


def alone(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own that fails if Ray or torch was imported in it."""
    script = (
        "import sys; from orchestrator import cli; status = cli.main(sys.argv[1:]);"
        "assert not {'ray', 'torch'} & set(sys.modules), 'an engine was loaded';"
        "sys.exit(status)"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", [("sweep", "spec.yaml", "--out", "out"), ("resume", "out")])
@pytest.mark.parametrize("engine", ["ray", "inline"])
def test_a_sweep_with_failed_trials_answers_from_its_records(
    failed: SweepLayout, words: tuple[str, ...], engine: str
) -> None:
    before = failed.store.names(failed.trials), failed.store.get(failed.seal)
    page = Path("out/report/report.md")
    said = page.read_text()
    page.unlink()
    for more, status in (([], 1), (["--accept-failures"], 0)):
        ended = alone(*words, "--engine", engine, "--json", *more)
        assert ended.returncode == status, ended.stderr
        report = json.loads(ended.stdout)
        assert len(report["failed"]) == 1 and report["rows"]
        assert "nothing is left to run" in ended.stderr
        assert "1 trial(s) diverged" in ended.stderr
    assert page.read_text() == said
    assert before == (failed.store.names(failed.trials), failed.store.get(failed.seal))


def test_a_finished_sweep_still_checks_its_records_and_its_data(failed: SweepLayout) -> None:
    record = Path("out") / trial_of(failed, "good").stage(0)
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    assert alone("resume", "out", "--engine", "ray").returncode == 2
    record.write_bytes(whole)
    write_data(Path("features.npz"), mended=True)
    ended = alone("sweep", "spec.yaml", "--out", "out")
    assert ended.returncode == 2 and "is not what this sweep was begun with" in ended.stderr


def test_what_fails_again_and_again_is_run_as_often_as_was_asked(
    failed: SweepLayout, run: Run
) -> None:
    for words in (("sweep", "spec.yaml", "--engine", "inline", "--out", "out"), ("resume", "out")):
        status, _, said = run(*words, "--retry-failed", "2")
        assert status == 1
        assert said.count("1 failed trial(s) to run again") == 2
        assert said.count("diverges · seed 0: failed:") == 2
        assert run(*words, "--retry-failed", "1", "--accept-failures")[0] == 0


def test_what_failed_for_a_while_is_finished_by_the_sweep_itself(
    failed: SweepLayout, run: Run
) -> None:
    good = trial_of(failed, "good")
    last = good.stage(1)
    whole = failed.store.get(last)
    failed.store.remove(last)
    write_error(good, stage=1, error=RuntimeError("the power was gone"))
    assert run("resume", "out")[0] == 1
    assert not failed.store.has(last)
    assert run("resume", "out", "--retry-failed", "1", "--accept-failures")[0] == 0
    assert failed.store.get(last) == whole


@pytest.mark.parametrize("number", ["-1", "x", "1.5", ""])
def test_a_number_of_retries_that_is_none_is_refused(number: str) -> None:
    ended = alone("resume", "out", f"--retry-failed={number}")
    assert ended.returncode == 2 and "--retry-failed" in ended.stderr
