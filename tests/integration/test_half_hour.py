"""A sweep that moves from one lent machine to the next comes to what it would have come to on
one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.helpers.dataset_files import write_image_folder
from tests.helpers.sweeps import outcome_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPEC = """\
name: lent
dataset: {name: folder, path: unset, validation: {from: none}}
budget: {full_labels: 12, mode: exact}
base:
  method: {name: mean_teacher, backbone: small_cnn, epochs: 2, batch_size: 8}
  schedule: {initial_labels_per_class: 1, split: [0.5, 0.5]}
cases:
  full labels only: {schedule.initial_labels_per_class: 4, schedule.split: []}
  two stages, NLS: {}
baseline: full labels only
seeds: [0, 1, 2]
resources: {checkpoint_seconds: 0}
"""


def half_hour(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmark.half_hour", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )


def lent(spec: Path, archive: Path, work: Path, earlier: Path, out: Path, seconds: float) -> str:
    """One loan of a bare machine, whose folder `work` is; what it printed."""
    shutil.rmtree(work, ignore_errors=True)
    words = [
        str(spec),
        "--archive",
        str(archive),
        "--results",
        str(earlier),
        "--out",
        str(out),
        "--work",
        str(work),
        "--seconds",
        str(seconds),
    ]
    ended = half_hour(*words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_sweep_goes_on_from_one_loan_to_the_next(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "photos", train=14, test=4)
    archive, spec, work = tmp_path / "photos.tar.gz", tmp_path / "lent.yaml", tmp_path / "work"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "photos", "photos")
    spec.write_text(SPEC)
    lent(spec, archive, work, tmp_path / "none", tmp_path / "at-once", 600)
    undisturbed = outcome_of(work / "sweep")
    earlier, seconds = tmp_path / "none", 4.0
    for loan in range(12):
        said = lent(spec, archive, work, earlier, tmp_path / f"loan-{loan}", seconds)
        earlier, seconds = tmp_path / f"loan-{loan}", seconds * 1.5
        assert not list(work.glob("sweep/stages/*/*.ckpt")) or "exit 130" in said
        if "exit 0" in said:
            break
    assert outcome_of(work / "sweep") == undisturbed
    words = [
        str(spec),
        "--archive",
        str(archive),
        "--results",
        str(earlier),
        "--out",
        str(tmp_path / "other"),
        "--work",
        str(tmp_path / "elsewhere"),
    ]
    refused = half_hour(*words, "--set", "method.epochs=1")
    assert refused.returncode == 2 and "already holds another sweep" in refused.stderr
    assert half_hour(*words).returncode == 0, "the same words go on, also under another --work"
    packed_names = _names(earlier)
    assert any(name.endswith("record.json") for name in packed_names) and not any(
        name.endswith((".pt", ".ckpt")) for name in packed_names
    )


def _names(parts: Path) -> list[str]:
    whole = parts / "whole.tar.gz"
    whole.write_bytes(b"".join(part.read_bytes() for part in sorted(parts.glob("sweep-*.part"))))
    with tarfile.open(whole) as packed:
        return packed.getnames()
