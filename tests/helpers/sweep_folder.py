"""Writes the folder of a sweep by hand: made-up numbers in the real file formats."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.catalogue import INSTALLED
from orchestrator.data.sources.digits import Digits
from orchestrator.labelling.oracles.simulated import Labels
from orchestrator.labelling.tasks.multiclass import MultiClass
from orchestrator.sweeps import resolved, seal
from orchestrator.sweeps.correctness import pack
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import put_object
from search_spaces.reading.config import (
    BudgetConfig,
    DatasetConfig,
    DatasetFacts,
    QueryConfig,
    Schedule,
    ScheduleConfig,
    Trial,
    TrialConfig,
)
from search_spaces.reading.trials import trial_to_mapping
from tests.helpers.on_disk import disk
from trainers.mean_teacher.settings import MeanTeacherConfig

FACTS = DatasetFacts(name="digits", num_classes=10, train_items=1200, test_items=597, kind="images")
LABEL_BITS = math.log2(10)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One candidate of the made-up sweep."""

    names: tuple[str, ...]
    initial_labels: int = 20
    quotas: tuple[int, ...] = (133, 132)
    budget_bits: float = 100 * LABEL_BITS
    settings: dict[str, Any] = field(default_factory=dict)
    nls: bool = True
    strategy: str = "random"
    skill: float = 0.0
    """Added to every accuracy."""
    method: dict[str, Any] = field(default_factory=dict)
    """Further settings of the method."""
    oracle: Any = field(default_factory=Labels)


def trial_of(case: Case, seed: int) -> Trial:
    questions = sum(case.quotas)
    config = TrialConfig(
        dataset=DatasetConfig(source=Digits()),
        budget=BudgetConfig(bits=case.budget_bits),
        method=MeanTeacherConfig(nls=case.nls, **case.method),
        schedule=ScheduleConfig(
            initial_labels_per_class=case.initial_labels // 10,
            split=tuple(quota / questions for quota in case.quotas),
        ),
        query=QueryConfig(strategy=INSTALLED.load("query", case.strategy)()),
        oracle=case.oracle,
        task=MultiClass(),
    )
    candidate = hashlib.sha256(repr((config, case.settings, case.quotas)).encode()).hexdigest()[:12]
    return Trial(
        id=hashlib.sha256(f"{candidate}:{seed}".encode()).hexdigest()[:12],
        candidate=candidate,
        cases=case.names,
        settings=case.settings,
        seed=seed,
        config=config,
        facts=FACTS,
        schedule=Schedule(initial_labels=case.initial_labels, quotas=case.quotas),
        budget_bits=case.budget_bits,
        bits=case.initial_labels * LABEL_BITS + questions,
        validation_bits=100 * LABEL_BITS,
        annotation_hours=(case.initial_labels * 60 + questions * 2.72) / 3600,
    )


def _key(trial: Trial, stage: int) -> str:
    return hashlib.sha256(f"{trial.id}:{stage}".encode()).hexdigest()[:32]


def records_of(case: Case, seed: int) -> list[dict[str, Any]]:
    """Stage records that look like real ones and are a function of the case and the seed."""
    trial = trial_of(case, seed)
    draw = random.Random(f"{case.names[0] if case.names else ''}:{case.settings}:{seed}")
    luck = random.Random(seed).gauss(0, 0.5)
    labelled, negative_only, asked, accuracy = case.initial_labels, 0, 0, 0.0
    rows: list[dict[str, Any]] = []
    for stage in range(len(case.quotas) + 1):
        quota = case.quotas[stage - 1] if stage else 0
        yes = round(quota * min(0.97, max(0.0, (accuracy + draw.gauss(0, 1.5)) / 100)))
        labelled, negative_only, asked = labelled + yes, negative_only + quota - yes, asked + quota
        accuracy = (
            97.5
            - 520 / (labelled + 12)
            + (0.01 * negative_only if case.nls else 0)
            + case.skill
            + luck
            + draw.gauss(0, 0.5)
        )
        rows.append(
            {
                "trial": trial.id,
                "stage": stage,
                "key": _key(trial, stage),
                "parent": _key(trial, stage - 1) if stage else None,
                "data": DATA,
                "trained": True,
                "bits": {
                    "labels": case.initial_labels * LABEL_BITS,
                    "questions": asked,
                    "total": case.initial_labels * LABEL_BITS + asked,
                },
                "validation_bits": 100 * LABEL_BITS,
                "questions": quota,
                "yes": yes,
                "no": quota - yes,
                "skipped": 0,
                "wasted": 0,
                "guess_accuracy": 100 * yes / quota if quota else None,
                "labelled": labelled,
                "negative_only": negative_only,
                "unasked": 1100 - labelled - negative_only,
                "unspent": 0,
                "val_top1": float(round(accuracy + draw.gauss(0, 0.8))),
                "val_top1_best": float(round(accuracy + 1)),
                "test_top1_last": accuracy,
                "test_top1_at_best_val": accuracy + draw.gauss(0, 0.2),
                "epochs": 20,
                "seconds": 3.0 + stage,
                "images_per_second": 9000.0,
                "device": "cpu",
                "precision": "bf16",
                "backbone": "small_cnn",
                "parameters": 60000,
                "seed": seed,
                "resumed_from_epoch": None,
                "world_size": 1,
                "versions": {"torch": "2.11"},
            }
        )
    return rows


ABLATIONS = (
    Case(names=("full labels only",), initial_labels=100, quotas=()),
    Case(names=("one stage, base",), quotas=(265,), nls=False, skill=-1.5),
    Case(names=("one stage, NLS",), quotas=(265,), skill=-0.8),
    Case(names=("two stages, base",), nls=False, skill=-1.0),
    Case(names=("two stages, NLS", "split 1:1", "random"), skill=0.4),
    Case(names=("three stages, NLS",), quotas=(89, 88, 88), skill=0.7),
    Case(names=("split 1:4",), quotas=(53, 212), skill=-0.1),
    Case(names=("split 4:1",), quotas=(212, 53), skill=-0.6),
    Case(names=("one label per class",), initial_labels=10, quotas=(150, 148), skill=-5.5),
    Case(names=("five labels per class",), initial_labels=50, quotas=(83, 83), skill=-0.2),
    Case(names=("easy questions first",), strategy="easy", skill=-2.0),
    Case(names=("hard questions first",), strategy="hard", skill=0.9),
)


DATA = "d" * 64
"""Fingerprint of the made-up data."""


def write_records(layout: SweepLayout, trial: Trial, records: Sequence[dict[str, Any]]) -> None:
    """The trial has finished these stages; its ledger has no part in it."""
    for record in records:
        name = layout.trial(trial.id).stage(record["stage"])
        layout.store.remove(name)
        put_object(layout.store, name, record)
    seal.write(layout)


def write_correct(
    layout: SweepLayout, case: Case, seed: int, correct: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """The file of right guesses of a trial's last stage is there; what the stage's record says of
    it and of the accuracy.
    """
    data = pack(correct)
    name = layout.trial(trial_of(case, seed).id).test_correct(len(case.quotas))
    layout.store.put(name, data, replace=True)
    return {
        "test_top1_last": 100.0 * float(correct.mean()),
        "test_correct_sha256": hashlib.sha256(data).hexdigest(),
    }


def write_candidates(layout: SweepLayout, cases: Sequence[Case], seeds: Sequence[int]) -> None:
    """Candidates by number, each with a trial a seed."""
    for number, case in enumerate(cases):
        trials = [trial_of(case, seed) for seed in seeds]
        row = {
            "candidate": trials[0].candidate,
            "cases": list(case.names),
            "settings": case.settings,
            "trials": [trial_to_mapping(trial) for trial in trials],
        }
        put_object(layout.store, layout.candidate(number), row | {"number": number})


def write_sweep(
    root: Path,
    cases: Sequence[Case] = ABLATIONS,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    done: bool = True,
    **changed: Any,
) -> SweepLayout:
    """A sweep's folder; `done`: every trial has finished. `changed`: further keys of
    resolved.yaml.
    """
    layout = SweepLayout.at(root)
    root.mkdir(parents=True, exist_ok=True)
    names = [name for case in cases for name in case.names]
    disk(layout).spec.write_text("name: ablations\n")
    disk(layout).manifest.write_text("{}\n")
    plain: dict[str, Any] = {
        "schema": resolved.SCHEMA,
        "name": "ablations",
        "overrides": [],
        "cases": {name: {} for name in names},
        "seeds": list(seeds),
    }
    plain |= {
        "search": {"algorithm": "grid", "num_candidates": None},
        "listed": None,
        "data": {"path": None, "fingerprint": DATA},
    }
    plain |= {"resources": {"max_concurrent": 2, "share_stages": True}, "baseline": None}
    plain |= {
        f"{path.stem}_sha256": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (disk(layout).spec, disk(layout).manifest)
    }
    resolved.write(layout, plain | changed)
    write_candidates(layout, cases, seeds)
    if done:
        first_with: set[tuple[int, int]] = set()
        for case in cases:
            for seed in seeds:
                records = records_of(case, seed)
                # Stage 0 depends on the initial labels and the seed alone: only the first trial
                # trains it.
                records[0]["trained"] = (case.initial_labels, seed) not in first_with
                first_with.add((case.initial_labels, seed))
                write_records(layout, trial_of(case, seed), records)
    return layout


def fail(
    layout: SweepLayout,
    trial: Trial,
    message: str = "loss is NaN at stage 1, epoch 3, step 17; try a lower learning rate",
) -> None:
    path = disk(layout.trial(trial.id)).error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"stage": 1, "kind": "TrainingFailed", "message": message, "traceback": "..."}),
        encoding="utf-8",
    )
