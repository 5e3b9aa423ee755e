"""A small sweep of two trials on feature vectors, for tests of what its folder says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from orchestrator.sweeps.candidates import load_candidates
from orchestrator.sweeps.layout import SweepLayout, TrialLayout

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
"""Runs a command: exit status, standard output, standard error."""


def write_data(path: Path, *, mended: bool = False, seed: int = 0) -> None:
    """Four classes of vectors; `mended`: one label is another."""
    rng = np.random.default_rng(seed)
    y = np.arange(120) % 4
    x = rng.normal(size=(120, 6)).astype(np.float32) + 4 * np.eye(6, dtype=np.float32)[y]
    if mended:
        y[7] = (y[7] + 1) % 4
    np.savez(path, x=x, y=y)


def trial_of(sweep: SweepLayout, case: str) -> TrialLayout:
    (found,) = [candidate for candidate in load_candidates(sweep) if case in candidate.cases]
    return sweep.trial(found.trials[0].id)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
