"""A small world for pool tests: stores, oracles and trials, some of which fail on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.catalogue import INSTALLED
from orchestrator.labelling.answers import NO, PENDING, SKIPPED, YES, Answers
from orchestrator.labelling.choose import choose
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.oracles.simulated import Around, LabelsOracle
from orchestrator.labelling.pool import Pool, PoolTerms, Round
from orchestrator.labelling.protocols import GivenLabels, Oracle, Simulation
from orchestrator.labelling.questions import ClassSets, Questions
from orchestrator.storage.segments import Segments
from search_spaces.reading.config import ValidationConfig
from trainers.stage import Classes, Ids

NO_VALIDATION = ValidationConfig(source="none")


class Crash(Exception):
    """The process died here."""


class MemorySegments:
    """The contract of Segments in a dictionary; may die just before or just after a put, and may
    let a rival be first.
    """

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.die_before = False
        self.die_after = False
        self.rival: Callable[[], object] | None = None

    @property
    def location(self) -> str:
        return "memory"

    def put_if_absent(self, name: str, data: bytes) -> bool:
        if self.rival is not None:
            rival, self.rival = self.rival, None
            rival()
        if self.die_before:
            self.die_before = False
            raise Crash
        ours = self.held.setdefault(name, data) == data
        if self.die_after:
            self.die_after = False
            raise Crash
        return ours

    def get(self, name: str) -> bytes:
        try:
            return self.held[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def names(self) -> list[str]:
        return sorted(self.held)


@dataclass
class PeopleOracle(Around):
    """Answers a part of what is asked, skips a part, and may die while answering. What it does next
    is up to `rng`, as with people.
    """

    inner: Simulation
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    answered_share: float = 1.0
    skipped_share: float = 0.0
    die: bool = False
    labels_too: bool = False
    """Whether labels come as answers do; else all at once."""
    asked: list[tuple[int, int]] = field(default_factory=list)
    """Image and class of every question; of a label that was asked for, the image and -1."""

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        self.asked += zip(asked.ids.tolist(), asked.sets.codes().tolist(), strict=True)
        if self.die:
            self.die = False
            raise Crash
        return self._when_they_like(self.inner.answer(asked, repeats))

    def label(self, ids: Ids, kind: str) -> GivenLabels:
        labels = self.inner.label(ids, kind)
        if not self.labels_too:
            return labels
        self.asked += [(item, -1) for item in ids.tolist()]
        if self.die:
            self.die = False
            raise Crash
        given = self._when_they_like(labels.given)
        sets = [
            (c,) if answer == YES else ()
            for answer, c in zip(given, labels.sets.classes.tolist(), strict=True)
        ]
        return GivenLabels(given, ClassSets.of(sets))

    def _when_they_like(self, answers: Answers) -> Answers:
        answers = np.where(self.rng.random(answers.size) < self.skipped_share, SKIPPED, answers)
        came = self.rng.random(answers.size) < self.answered_share
        return np.where(came, answers, PENDING).astype(np.int8)


@dataclass
class HalfOracle(PeopleOracle):
    """Answers the first half, rounded up, of what is outstanding at each call."""

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        answers = super().answer(asked, repeats)
        answers[(len(asked) + 1) // 2 :] = PENDING
        return answers


def terms(**changes: Any) -> PoolTerms:
    """A digits-like trial of 120 images and 4 classes: 8 labels (16 bits) and 30 + 20 questions."""
    base = PoolTerms(
        trial="0123456789ab",
        seed=0,
        num_classes=4,
        pool_items=120,
        initial_labels_per_class=2,
        validation=ValidationConfig(source="split", per_class=3),
        budget_bits=16.0 + 50,
        quotas=(30, 20),
        requery="pool",
    )
    return replace(base, **changes)


def true_labels(of: PoolTerms) -> Classes:
    """Random classes, each held by enough images for every trial here."""
    labels = np.arange(of.pool_items, dtype=np.int32) % of.num_classes
    return np.random.default_rng(1).permutation(labels)


def labels_oracle(of: PoolTerms) -> LabelsOracle:
    return LabelsOracle(true_labels(of), of.num_classes)


def open_pool(of: PoolTerms, segments: Segments, oracle: Oracle | None = None) -> Pool:
    pool = Pool(of, Ledger(segments), oracle if oracle is not None else labels_oracle(of))
    pool.open()
    return pool


def scores(pool: Pool, number: int, mask_refused: bool = True) -> dict[str, npt.NDArray[Any]]:
    """What a stage would hand over, as a pure function of the pool's inputs: random probabilities,
    refused classes left out of `guess`.
    """
    inputs = pool.training_inputs()
    num_classes = pool.state().terms.num_classes
    # One row an image of the whole set, so that an image's scores do not depend on which others are
    # in the pool.
    raw = np.random.default_rng(number).random((pool.state().terms.pool_items, num_classes))
    masked = raw.copy()
    masked[inputs.negative_ids, inputs.negative_classes] = 0
    ids = inputs.pool_ids
    held = masked[ids] / masked[ids].sum(axis=1, keepdims=True)
    everything = raw[ids] / raw[ids].sum(axis=1, keepdims=True)
    return {"item_ids": ids} | _summary("", held) | _summary("raw_", everything)


def _summary(prefix: str, probabilities: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    first = np.sort(probabilities, axis=1)
    return {
        f"{prefix}guess": probabilities.argmax(axis=1).astype(np.int32),
        f"{prefix}confidence": first[:, -1].astype(np.float32),
        f"{prefix}margin": (first[:, -1] - first[:, -2]).astype(np.float32),
        f"{prefix}entropy": (
            -(probabilities * np.log(np.maximum(probabilities, 1e-30)))
            .sum(axis=1)
            .astype(np.float32)
        ),
    }


def ask_round(
    pool: Pool, number: int, strategy: str = "random", mask_refused: bool = True
) -> Round:
    """The round is asked until it is over."""
    asked = pool.round(number)
    if asked is None:
        asking = 1 + pool.counts().rounds
        query = INSTALLED.load("query", strategy)()
        questions = choose(
            pool.state().terms.task,
            query,
            scores(pool, asking),
            pool.eligible(),
            pool.quota(number),
            known=pool.training_inputs,
            seed=pool.state().terms.seed,
            round=asking,
            mask_refused=mask_refused,
        )
        asked = pool.ask(number, questions)
    while not asked.over:
        asked = pool.ask(number, asked.asked)
    return asked


def finish(pool: Pool, strategy: str = "random", mask_refused: bool = True) -> Pool:
    """Every round of the trial has been asked."""
    for number in range(1, len(pool.state().terms.quotas) + 1):
        ask_round(pool, number, strategy, mask_refused)
    return pool


def charged(pool: Pool) -> list[tuple[int, int, int]]:
    """(round, id, answer) of every question, or label of a round, that was paid for."""
    return [
        (one.number, item, answer)
        for one in pool.state().rounds
        for item, answer in zip(one.ids.tolist(), one.answers.tolist(), strict=True)
        if answer in (YES, NO)
    ]
