"""Published accuracies beside ours: which published row a row of a sweep is, and in what the two
are unlike.

Nothing is compared silently: an anchor carries network, epochs, bits and protocol of both sides,
and on other data there is no difference at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import yaml

from orchestrator.reporting.comparison import EQUAL_BITS
from orchestrator.reporting.rows import Row
from search_spaces.reading.config import Trial

FILE: Final = Path(__file__).parent / "published.yaml"

OWN_SOURCE: Final = "hu2020"
"""The source of the tables that are packaged."""

_SAME_SIZE: Final = 0.001
"""Share by which two sets may differ in images and still have one shape (a paper rounds them)."""


_SAME_SPLIT: Final = 0.02
"""Share of all questions by which a round may differ: an exact budget holds 1% fewer than the
paper's whole numbers.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published row."""

    source: str
    title: str
    protocol: str
    table: str
    row: str
    dataset: str
    classes: int
    items: int
    """Training images."""
    labels: int
    """|D_S|."""
    quotas: tuple[int, ...] | None
    """None: not published."""
    rounds: int
    method: str
    """As a spec names the training method."""
    nls: bool | None
    """None: not said, or without questions."""
    strategy: str | None
    kbits: float
    top1: tuple[float, ...]
    """Percent after each training, or the last one alone."""
    confirmed: int | None
    """Answers "yes" in all rounds; None: not published."""
    backbone: str
    epochs: int
    consistency_weight: float | None
    """None: the method has none."""
    weights: Mapping[str, float]
    """Name of a loss's weight -> its value, of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a source says that full labels, or labels and questions, are worth."""

    dataset: str
    labels: int
    questions: int
    kbits: float


@cache
def budgets() -> tuple[Budget, ...]:
    """The published budgets."""
    return tuple(Budget(**entry) for entry in _document()["budgets"])


@cache
def published() -> tuple[Published, ...]:
    """Every published row, in the order of the file."""
    document = _document()
    entries = []
    for entry in document["results"]:
        values = document["unless_said"] | document["data"][entry["dataset"]] | entry
        quotas = values["quotas"]
        values["quotas"] = None if quotas is None else tuple(quotas)
        values["rounds"] = values["rounds"] if quotas is None else len(quotas)
        values["top1"] = tuple(values["top1"])
        entries.append(Published(**values, **document["sources"][values["source"]]))
    return tuple(entries)


@cache
def _document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return loaded


def matches(trial: Trial) -> list[Published]:
    """Published rows with the labels, questions, suppression and strategy of this trial, on its
    data or on data of the same shape; each experiment once.
    """
    candidates = [
        entry for entry in published() if _same_shape(entry, trial) and _same_schedule(entry, trial)
    ]
    here = [entry for entry in candidates if entry.dataset == trial.facts.name]
    kept: list[Published] = []
    # The row with the longest chain stands for those that repeat its last number in another table.
    for entry in sorted(here or candidates, key=lambda one: -len(one.top1)):
        if not any(
            (one.source, one.dataset, one.top1[-1]) == (entry.source, entry.dataset, entry.top1[-1])
            for one in kept
        ):
            kept.append(entry)
    return kept


def _same_shape(entry: Published, trial: Trial) -> bool:
    facts = trial.facts
    return (
        facts.kind == "images"
        and entry.classes == facts.num_classes
        and abs(entry.items - facts.train_items) <= _SAME_SIZE * entry.items
    )


def _same_schedule(entry: Published, trial: Trial) -> bool:
    quotas, method = trial.schedule.quotas, trial.config.method
    if trial.schedule.buys == "labels":
        return False
    if entry.method != method.name or entry.labels != trial.schedule.initial_labels:
        return False
    if trial.config.method_of(0) is not method:
        return False
    if (
        entry.rounds != len(quotas)
        or abs(trial.bits - 1000 * entry.kbits) > EQUAL_BITS * trial.bits
    ):
        return False
    if entry.quotas is not None and any(
        abs(theirs - ours) > _SAME_SPLIT * sum(entry.quotas)
        for theirs, ours in zip(entry.quotas, quotas, strict=True)
    ):
        return False
    return not quotas or (
        entry.nls in (None, getattr(method, "nls", None))
        and entry.strategy in (None, trial.config.query.strategy.name)
    )


def anchors(table: list[Row]) -> list[dict[str, Any]]:
    """Every row of the report that has been published, as JSON values: ours, theirs, the gap in
    points, and what is unlike.

    `gap` is our mean test accuracy of the last epoch minus the published accuracy; null on other
    data, for a third party's number of another network, and before a seed has finished.
    """
    rows: list[dict[str, Any]] = []
    for index, row in enumerate(table):
        if not row.candidate.trials:
            continue
        trial = row.candidate.trials[0].trial
        for entry in matches(trial):
            same_data = entry.dataset == trial.facts.name
            ours = _ours(row, trial)
            mean = ours["test"]["mean"]
            # A number that a third party set against another network's says nothing of ours.
            comparable = same_data and (
                entry.source == OWN_SOURCE or ours["backbone"] == entry.backbone
            )
            rows.append(
                {
                    "row": index,
                    "label": row.label,
                    "same_data": same_data,
                    "ours": ours,
                    "published": {
                        key: list(value) if isinstance(value, tuple) else value
                        for key, value in asdict(entry).items()
                    },
                    "gap": mean - entry.top1[-1] if comparable and mean is not None else None,
                    "unlike": [*_unlike(entry, ours, same_data), *_unlike_settings(entry, trial)],
                }
            )
    return rows


def _ours(row: Row, trial: Trial) -> dict[str, Any]:
    config, records = trial.config, [record for result in row.finished for record in result.records]
    test = row.summary(lambda record: record.test)
    parts = [_between_stages(trial)]
    parts.append(
        "first images of each class as initial labels"
        if config.schedule.initial_choice == "first"
        else "random initial labels"
    )
    parts.append(
        "guesses of refused classes " + ("masked" if config.query.mask_refused else "possible")
    )
    parts.append(
        "images asked again" if config.query.requery == "pool" else "each image asked once"
    )
    if config.dataset.validation.apart:
        parts.append("validation images kept out of the pool")
    parts.append("the model of the last epoch, chosen by nothing")
    return {
        "dataset": trial.facts.name,
        "backbone": (
            "/".join(sorted({record.backbone for record in records})) or config.method.backbone
        ),
        "epochs": config.method.epochs,
        "quotas": list(trial.schedule.quotas),
        "kbits": trial.bits / 1000,
        "n": row.n,
        "yes": (
            fmean(sum(record.yes for record in result.records) for result in row.finished)
            if row.finished
            else None
        ),
        "test": {"mean": test.mean, "std": test.std},
        "protocol": ", ".join(parts),
    }


def _between_stages(trial: Trial) -> str:
    """What a stage has of the training before it, in words."""
    rounds = len(trial.schedule.quotas)
    reads = trial.config.method.stage(1, max(rounds, 1), has_negatives=True).reads
    if "state" in reads:
        return "one training that asks at several of its epochs"
    return f"weights {'carried from stage to stage' if reads else 'from scratch in every stage'}"


def _unlike_settings(entry: Published, trial: Trial) -> list[str]:
    """Answers and loss weights that the published row did not have."""
    oracle, method = trial.config.oracle, trial.config.method
    differing = [] if oracle.name == "labels" else [f"answers ({oracle.name})"]
    theirs = dict(entry.weights)
    if entry.consistency_weight is not None:
        theirs["consistency_weight"] = entry.consistency_weight
    return differing + [
        f"{name.replace('_', ' ')} ({getattr(method, name):g}, theirs {value:g})"
        for name, value in theirs.items()
        if getattr(method, name, value) != value
    ]


def _unlike(entry: Published, ours: dict[str, Any], same_data: bool) -> list[str]:
    """What the two sides do not share, in words; that theirs was chosen by test accuracy is part of
    its protocol and so always among them.
    """
    differing = [] if same_data else ["data"]
    differing += [key for key in ("backbone", "epochs") if ours[key] != getattr(entry, key)]
    if entry.quotas is None:
        differing.append("shares of the questions, which are not published")
    elif list(entry.quotas) != ours["quotas"]:
        differing.append("number of questions")
    return [*differing, "choice of the model"]
