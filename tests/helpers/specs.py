"""Two specs that are right, to be made wrong, and how one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.catalogue import load_spec
from search_spaces.reading.errors import SpecError

VALID = """\
name: example
dataset:
  name: digits
  validation:
    from: split
    per_class: 10
budget:
  full_labels: 100
base:
  method:
    name: mean_teacher
    consistency_weight: 10
    nls: true
    epochs: 20
  schedule:
    initial_labels_per_class: 2
    split: [0.5, 0.5]
  query:
    strategy: random
    requery: pool
cases:
  full labels only:
    schedule.initial_labels_per_class: 10
    schedule.split: []
  two stages, NLS: {}
vary: {}
seeds: [0, 1, 2]
search:
  algorithm: grid
resources:
  workers: 1
"""

SEARCH = """\
name: example
dataset:
  name: digits
budget:
  full_labels: 100
base:
  method:
    name: mean_teacher
  schedule:
    initial_labels_per_class: 2
    stages: 2
vary:
  schedule.stages:
    int: [1, 4]
  schedule.split:
    simplex: {floor: 0.05, step: 0.05}
  method.consistency_weight:
    loguniform: [1, 100]
seeds: [0]
search:
  algorithm: tpe
  num_candidates: 4
"""


def write(folder: Path, text: str) -> str:
    path = folder / "bad.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return str(path)


def refusal(path: str, *overrides: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    return caught.value
