"""One class an image: the task of Hu et al. 2020 (arXiv:2009.06168)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import NO, YES, Answers
from orchestrator.labelling.facts import Facts, Keys, positions
from orchestrator.labelling.protocols import Learned, Scores
from orchestrator.labelling.questions import ClassSets, Questions
from search_spaces.reading.initial_choices import INITIAL_CHOICES
from trainers.metrics import TOP1, Metric
from trainers.stage import Ids, StageInputs

RAW: Final = "raw_"
"""Prefix of the arrays that leave no class out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiClass:
    """Every image is of one class. A yes names it, a no rules one out, and the last class that is
    left is the label, for free.
    """

    name: ClassVar[str] = "multiclass"
    trained_as: ClassVar[str] = "multiclass"
    metric: ClassVar[Metric] = TOP1
    needs: ClassVar[tuple[str, ...]] = ("guess", "confidence")
    makes: ClassVar[tuple[str, ...]] = ()
    several_labels: ClassVar[bool] = False
    several_questions: ClassVar[bool] = False
    choices: ClassVar[tuple[str, ...]] = tuple(INITIAL_CHOICES)
    label: ClassVar[str] = "label"
    yes_is_label: ClassVar[bool] = True

    def prices(self, num_classes: int) -> Mapping[str, float]:
        return {"label": math.log2(num_classes), "answer": 1.0}

    def know(self, facts: Facts, ids: Ids, labels: ClassSets) -> Facts:
        held = facts.positives.keys(facts.num_classes)
        keys = ids.astype(np.int64) * facts.num_classes + labels.classes
        return facts.with_keys(np.union1d(held, keys), facts.negatives.keys(facts.num_classes))

    def open(self, facts: Facts) -> npt.NDArray[np.bool_]:
        return ~facts.has_positive()

    def questions(
        self,
        images: Ids,
        scores: Scores,
        needs: tuple[str, ...],
        known: Callable[[], StageInputs],
        *,
        mask_refused: bool,
    ) -> tuple[Questions, Scores]:
        at = rows_of(images, scores)
        prefix = "" if mask_refused else RAW
        asked = Questions.singles(
            images, scores[f"{prefix}guess"][at], scores[f"{prefix}confidence"][at]
        )
        return asked, arrays_at(at, scores, needs, prefix)

    def learn(self, facts: Facts, asked: Questions, answers: Answers) -> Learned:
        if not asked.sets.single:
            return learn_sets(facts, asked, answers)
        num_classes = facts.num_classes
        refused = facts.negatives.keys(num_classes)
        keys = asked.ids.astype(np.int64) * num_classes + asked.guesses
        _, again = positions(refused, keys)
        yes, no = answers == YES, answers == NO
        # A yes against an earlier no can come only from an oracle that errs; the later one stands.
        if np.any(yes & again):
            refused = refused[~np.isin(refused, keys[yes & again], assume_unique=True)]
        refused = np.sort(np.concatenate([refused, keys[no & ~again]]), kind="stable")
        found = _with_labels(facts, refused, keys[yes], asked.ids[no])
        return Learned(
            facts=found,
            wasted=int(np.count_nonzero(again & (yes | no))),
            conflicts=int(np.count_nonzero(again & yes)),
        )


def arrays_at(
    at: npt.NDArray[np.intp], scores: Scores, needs: tuple[str, ...], prefix: str
) -> Scores:
    """Returns rows of the arrays that a strategy needs and of no other: the stage may leave out
    those that no strategy of the sweep needs.

    Args:
        at: [n] the rows.
        prefix: RAW where refused classes may be guessed again, else empty.
    """
    return {
        name: scores[f"{prefix}{name}" if f"{prefix}{name}" in scores else name][at]
        for name in needs
    }


def rows_of(images: Ids, scores: Scores) -> npt.NDArray[np.intp]:
    """Returns the row of each image in a model's arrays; ValueError where one has none."""
    held = scores["item_ids"]
    at = np.searchsorted(held, images)
    if np.any(at >= held.size) or not np.array_equal(held[at], images):
        raise ValueError("the scores do not cover every eligible image")
    return at


def learn_sets(facts: Facts, asked: Questions, answers: Answers) -> Learned:
    """Returns what `learn` does, where some questions name several classes: a yes rules out all
    others, a no rules out each of them.
    """
    num_classes = facts.num_classes
    refused = facts.negatives.keys(num_classes)
    inside = np.zeros((len(asked), num_classes), np.bool_)
    inside[asked.sets.rows, asked.sets.classes] = True
    was_refused = np.zeros_like(inside)
    row_of = np.full(facts.images, -1, np.int64)
    row_of[asked.ids] = np.arange(len(asked))
    known = row_of[facts.negatives.ids]
    was_refused[known[known >= 0], facts.negatives.classes[known >= 0]] = True
    yes, no = answers == YES, answers == NO
    none_left = np.all(was_refused | ~inside, axis=1)
    """The answer had to be no."""
    none_else = np.all(was_refused | inside, axis=1)
    """The answer had to be yes."""
    conflict = (yes & none_left) | (no & none_else)
    now = was_refused.copy()
    now[yes] |= ~inside[yes]
    now[no] |= inside[no]
    # The later answer stands: what it says is possible is no longer ruled out.
    now[yes & none_left] = ~inside[yes & none_left]
    now[no & none_else] = inside[no & none_else]
    rows, classes = np.nonzero(now)
    others = refused[~np.isin(facts.negatives.ids, asked.ids)]
    refused = np.sort(
        np.concatenate([others, asked.ids[rows].astype(np.int64) * num_classes + classes]),
        kind="stable",
    )
    told = yes | no
    found = _with_labels(facts, refused, np.empty(0, np.int64), asked.ids[told])
    return Learned(
        facts=found,
        wasted=int(np.count_nonzero(told & (none_left | none_else))),
        conflicts=int(np.count_nonzero(conflict)),
    )


def _with_labels(facts: Facts, refused: Keys, confirmed: Keys, touched: npt.NDArray[Any]) -> Facts:
    """The facts with these classes refused, these confirmed, and those of `touched` labelled that
    have all classes refused but one.
    """
    num_classes = facts.num_classes
    found = facts.with_keys(facts.positives.keys(num_classes), refused)
    ids, classes = found.negatives.ids, found.negatives.classes
    first = np.searchsorted(ids, touched, "left")
    held = np.searchsorted(ids, touched, "right") - first
    full = held == num_classes - 1
    # The classes of one image lie together: what the sum of all classes lacks is the one not
    # refused.
    rows = classes[first[full][:, None] + np.arange(num_classes - 1)].astype(np.int64)
    left = num_classes * (num_classes - 1) // 2 - rows.sum(axis=1)
    eliminated = touched[full].astype(np.int64) * num_classes + left
    labelled = np.sort(
        np.concatenate([facts.positives.keys(num_classes), confirmed, eliminated]), kind="stable"
    )
    return facts.with_keys(labelled, refused)
