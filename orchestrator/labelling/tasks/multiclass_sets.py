"""One class an image, asked for by halves: "is it one of these classes?"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from orchestrator.labelling.answers import Answers
from orchestrator.labelling.facts import Facts
from orchestrator.labelling.protocols import Learned, Scores
from orchestrator.labelling.questions import ClassSets, Questions
from orchestrator.labelling.tasks.multiclass import RAW, MultiClass, arrays_at, learn_sets, rows_of
from trainers.stage import Ids, StageInputs

_VALUES_AT_ONCE: Final = 1 << 22
"""Probabilities that are worked on in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiClassSets(MultiClass):
    """Every image is of one class, and a question is about a set of those that it may still be of:
    the likeliest ones, as many of them as come nearest to half of the probability. A yes rules out
    all others, a no rules out these, and the last class that is left is the label.
    """

    name: ClassVar[str] = "multiclass_sets"
    needs: ClassVar[tuple[str, ...]] = ("probabilities",)
    yes_is_label: ClassVar[bool] = False
    one_class: ClassVar[bool] = False

    seconds: Annotated[float, Interval(ge=0, le=10**6)] = 2.66
    """Of a person's time for an answer, whatever the set; with `seconds_per_class` 2.72 where it
    has one class, as measured by Hu et al. 2020.
    """
    seconds_per_class: Annotated[float, Interval(ge=0, le=10**6)] = 0.06
    """Besides, for each class of the set: the 60 s in which people found the label among 1,000
    classes (Hu et al. 2020), by a thousand. Of sets nothing was measured.
    """

    def answer_seconds(self, classes: float) -> float:
        """Returns the time of an answer about a set of so many classes, or about as many on
        average.
        """
        return self.seconds + self.seconds_per_class * classes

    def most_classes(self, num_classes: int) -> int:
        """Returns how many classes a question may name. The likeliest half of the classes has half
        of the probability, or more.
        """
        return -(-num_classes // 2)

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
        said, told = scores["probabilities"], known()
        step = max(1, _VALUES_AT_ONCE // said.shape[1])
        sizes, classes = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
        confidences = [np.zeros(0, np.float32)]
        for start in range(0, len(images), step):
            ids = images[start : start + step]
            possible = np.ones((len(ids), said.shape[1]), np.bool_)
            if mask_refused:
                rows = np.searchsorted(ids, told.negative_ids)
                mine = np.isin(told.negative_ids, ids)
                possible[rows[mine], told.negative_classes[mine]] = False
            inside, mass = halves(said[at[start : start + step]], possible)
            sizes.append(inside.sum(axis=1))
            classes.append(np.nonzero(inside)[1].astype(np.int32))
            confidences.append(mass.astype(np.float32))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(sizes))])
        asked = Questions(
            ids=images.astype(np.int64, copy=False),
            sets=ClassSets(starts, np.concatenate(classes)),
            confidences=np.concatenate(confidences),
        )
        return asked, arrays_at(at, scores, needs, "" if mask_refused else RAW)

    def learn(self, facts: Facts, asked: Questions, answers: Answers) -> Learned:
        learned = learn_sets(facts, asked, answers)
        # What a label rules out goes without saying: kept, it would be C - 1 entries a label.
        found, labelled = learned.facts, learned.facts.has_positive()
        refused = found.negatives.keys(found.num_classes)[~labelled[found.negatives.ids]]
        kept = found.with_keys(found.positives.keys(found.num_classes), refused)
        return Learned(facts=kept, wasted=learned.wasted, conflicts=learned.conflicts)


def halves(
    probabilities: npt.NDArray[Any], possible: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Returns, for each image, the set of classes to ask about and the probability of a yes.

    The set is made of the likeliest possible classes, of equal ones the first, and of as many of
    them as come nearest to half of the probability of all that are possible, of two the fewer. It
    never holds all of them: that answer is known.

    Args:
        probabilities: [n, C]; of the possible classes they need not sum to 1. Where all of these
            are 0 they count as equal.
        possible: [n, C], two in a row at least.

    Returns:
        [n, C] True inside the set, and [n].
    """
    p = np.where(possible, probabilities.astype(np.float64), 0.0)
    p = np.where(p.sum(axis=1, keepdims=True) > 0, p, possible)
    order = np.argsort(-p, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(p, order, axis=1), axis=1)
    mass /= mass[:, -1:]
    count = possible.sum(axis=1, keepdims=True)
    places = np.arange(p.shape[1])[None]
    # Rounded, so that what is equal but for the last digits is equal.
    off = np.where(places < count - 1, np.round(np.abs(mass - 0.5), 12), np.inf)
    last = off.argmin(axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(places, order.shape), axis=1)
    return rank <= last[:, None], mass[np.arange(len(mass)), last]
