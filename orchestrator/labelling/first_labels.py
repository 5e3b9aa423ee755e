"""Round 0: which images are labelled before any question, and at what price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import PENDING, SKIPPED, YES
from orchestrator.labelling.keyed import keyed_uint64
from orchestrator.labelling.ledger import ROLES, Columns, Segment, as_column, as_sets
from orchestrator.labelling.protocols import GivenLabels, Oracle, Simulation
from orchestrator.labelling.questions import ClassSets
from orchestrator.labelling.terms import PoolTerms
from search_spaces.reading.initial_choices import InitialChoiceName, described
from search_spaces.reading.schedule import share_of
from trainers.errors import DataError
from trainers.stage import Ids

VALIDATION_SEED: Final = 0
"""Validation images are the same whatever the seed of the trial."""

_SHARE_SEED: Final = 1200

_SPLIT = ROLES.index("split_validation")


@dataclass(slots=True)
class Drawn:
    """The images of round 0 so far, in the order in which they were drawn."""

    ids: Ids
    labels: GivenLabels

    def plus(self, ids: Ids, labels: GivenLabels) -> Drawn:
        """Returns these images and, after them, others with these labels."""
        sets = [self.labels.sets, labels.sets]
        starts = np.concatenate([sets[0].starts, sets[1].starts[1:] + sets[0].starts[-1]])
        joined = ClassSets(starts, np.concatenate([one.classes for one in sets]))
        given = np.concatenate([self.labels.given, labels.given])
        return Drawn(np.concatenate([self.ids, ids]), GivenLabels(given, joined))

    def take(self, at: npt.NDArray[np.bool_]) -> Drawn:
        """Returns the images where the mask says so."""
        return Drawn(self.ids[at], GivenLabels(self.labels.given[at], self.labels.sets.take(at)))

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        """[k] whether a label is still to come."""
        return np.equal(self.labels.given, PENDING)

    @property
    def given(self) -> npt.NDArray[np.bool_]:
        """[k] whether there is a label."""
        return np.equal(self.labels.given, YES)

    def with_labels(self, at: npt.NDArray[np.intp], labels: GivenLabels) -> Drawn:
        """Returns the same images, those at these places with these labels."""
        if at.size == self.ids.size:
            return Drawn(self.ids, labels)
        held = [self.labels.sets.classes[a:b] for a, b in _bounds(self.labels.sets)]
        for place, (a, b) in zip(at.tolist(), _bounds(labels.sets), strict=True):
            held[place] = labels.sets.classes[a:b]
        given = self.labels.given.copy()
        given[at] = labels.given
        starts = np.cumsum([0, *map(len, held)], dtype=np.int64)
        sets = ClassSets(starts, np.concatenate([np.empty(0, np.int32), *held]))
        return Drawn(self.ids, GivenLabels(given, sets))


def _bounds(sets: ClassSets) -> list[tuple[int, int]]:
    return list(zip(sets.starts[:-1].tolist(), sets.starts[1:].tolist(), strict=True))


def by_share(images: int, share: float) -> Ids:
    """Returns the validation images that are a share of all, ascending: the last of them in a
    random order that is the same in every sweep.

    Source: Cole et al. 2021, whose split of the training images into four fifths and one has this
        seed; numpy keeps the numbers of this generator for ever.
    """
    order = np.random.RandomState(_SHARE_SEED).permutation(images)
    return np.sort(order[images - share_of(images, share) :]).astype(np.int64)


_NONE: Final = Drawn(np.empty(0, np.int64), GivenLabels.none(0))

Step = tuple[Literal["label_plan", "label_answers", "labels"], Columns]


class FirstLabels:
    """The next step of round 0, from the segments that are committed."""

    def __init__(
        self, terms: PoolTerms, segments: Sequence[Segment], choice: Choice | None = None
    ) -> None:
        """Raises DataError where the budget does not hold what is asked for at least.

        Args:
            choice: None: the one of CHOICES that the terms name.
        """
        _check(terms)
        self._terms = terms
        self._choice = choice or CHOICES[cast(InitialChoiceName, terms.initial_choice)]
        self._waited = bool(segments)
        """Whether images are planned already, whose labels were not there at once."""
        self._drawn, self._apart = _NONE, np.empty(0, np.bool_)
        """The images so far, and which of them are a validation set beside the budget."""
        for segment in segments:
            ids = segment.columns["id"].astype(np.int64)
            if segment.kind == "label_plan":
                self._drawn = self._drawn.plus(ids, GivenLabels.none(ids.size))
                apart = np.equal(segment.columns["role"], _SPLIT)
                self._apart = np.concatenate([self._apart, apart])
            elif segment.kind == "label_answers":
                order = np.argsort(self._drawn.ids, kind="stable")
                at = order[np.searchsorted(self._drawn.ids, ids, sorter=order)]
                came = GivenLabels(segment.columns["answer"], as_sets(segment.columns["label"]))
                self._drawn = self._drawn.with_labels(at, came)

    def next(self, oracle: Oracle) -> Step | None:
        """Returns the segment to commit next, or None while labels are to come. Where the oracle
        has all labels at once there is one segment, `labels`.

        Raises:
            DataError: there are too few images, or too few bits for what the draws came to.
        """
        while True:
            open_at = np.flatnonzero(self._drawn.open)
            if open_at.size:
                told = self._told(oracle, open_at)
                came = told.given != PENDING
                if self._waited:
                    if not np.any(came):
                        return None
                    told_now = np.zeros(self._drawn.ids.size, np.bool_)
                    told_now[open_at[came]] = True
                    rows = self._drawn.with_labels(open_at, told).take(told_now)
                    return "label_answers", self._answers(rows)
                if not np.all(came):
                    return "label_plan", self._plan(self._drawn.ids, self._apart)
                self._drawn = self._drawn.with_labels(open_at, told)
            more, apart = self._more(oracle)
            if not more.size:
                return "labels", self._columns()
            if self._waited:
                return "label_plan", self._plan(more, np.full(more.size, apart))
            self._drawn = self._drawn.plus(more, GivenLabels.none(more.size))
            self._apart = np.concatenate([self._apart, np.full(more.size, apart)])

    def _told(self, oracle: Oracle, at: npt.NDArray[np.intp]) -> GivenLabels:
        """Returns the labels of the images at these places."""
        terms, ids, apart = self._terms, self._drawn.ids[at], self._apart[at]
        if terms.validation_label == terms.task.label or not np.any(apart):
            return oracle.label(ids, terms.task.label)
        told = Drawn(ids, GivenLabels.none(ids.size))
        for mine, kind in ((apart, terms.validation_label), (~apart, terms.task.label)):
            if np.any(mine):
                told = told.with_labels(np.flatnonzero(mine), oracle.label(ids[mine], kind))
        return told.labels

    def _more(self, oracle: Oracle) -> tuple[Ids, bool]:
        """Returns images to draw next, and whether they are for validation beside the budget."""
        terms = self._terms
        if terms.validation.source == "share" and not np.any(self._apart):
            return by_share(terms.pool_items, terms.validation.share), True
        if terms.validation.source == "split" and not np.any(self._apart):
            simulation = cast(Simulation, oracle)
            per_class = terms.validation.per_class
            none = np.empty(0, np.int64)
            return simulation.balanced("validation", per_class, VALIDATION_SEED, none), True
        if not terms.initial_labels_per_class:
            return np.empty(0, np.int64), False
        without = self._drawn.ids[self._apart]
        return self._choice.next(terms, oracle, without, self._drawn.take(~self._apart)), False

    def _plan(self, ids: Ids, apart: npt.NDArray[np.bool_]) -> Columns:
        roles = np.where(apart, _SPLIT, ROLES.index("initial")).astype(np.int8)
        return {"id": ids.astype(np.int32), "role": roles}

    def _answers(self, rows: Drawn) -> Columns:
        return {
            "id": rows.ids.astype(np.int32),
            "label": as_column(rows.labels.sets, self._terms.num_classes),
            "answer": rows.labels.given.astype(np.int8),
        }

    def _columns(self) -> Columns:
        """Returns the segment that ends round 0: what was given, by ascending id."""
        given = self._drawn.given
        drawn, apart = self._drawn.take(given), self._apart[given]
        order = np.argsort(drawn.ids, kind="stable")
        roles = np.full(order.size, _SPLIT, np.int8)
        roles[~apart] = _roles(self._terms, drawn.take(~apart))
        return {
            "id": drawn.ids[order].astype(np.int32),
            "label": as_column(drawn.labels.sets.take(order), self._terms.num_classes),
            "role": roles[order],
        }


class Choice(Protocol):
    """Which images round 0 has labelled: a value of schedule.initial_choice."""

    def next(self, terms: PoolTerms, oracle: Oracle, without: Ids, drawn: Drawn) -> Ids:
        """Returns the images to label next, once everything drawn so far is answered; none when it
        is enough. A function of its arguments alone.

        Args:
            without: images that may not be drawn.
            drawn: what this choice drew so far.
        """
        ...


@dataclass(frozen=True, slots=True)
class Balanced:
    """`initial_labels_per_class` images of every class, found by an oracle that knows them."""

    first: bool
    """The first ones of each class, whatever the seed (the published code of Hu et al. 2020)."""

    def next(self, terms: PoolTerms, oracle: Oracle, without: Ids, drawn: Drawn) -> Ids:
        if drawn.ids.size:
            return np.empty(0, np.int64)
        simulation, per_class = cast(Simulation, oracle), terms.initial_labels_per_class
        return simulation.balanced("initial", per_class, terms.seed, without, first=self.first)


def too_few_images(terms: PoolTerms, wanted: int, images: int, drawn: Drawn) -> DataError:
    """Returns the error of a round 0 that wants more labels than so many images can give."""
    skipped = int(np.count_nonzero(drawn.labels.given == SKIPPED))
    without_label = f", {skipped} of which gave no label" if skipped else ""
    return DataError(
        f"trial {terms.trial}: {wanted} initial labels are asked for, and there are {images}"
        f" images{without_label}; ask for at most {images - skipped}"
    )


class Uniform:
    """As many images as `initial_labels_per_class` of each class would be, of whatever classes. An
    image that whoever labels skips is replaced by the next.
    """

    def next(self, terms: PoolTerms, oracle: Oracle, without: Ids, drawn: Drawn) -> Ids:
        wanted = terms.initial_labels_per_class * terms.num_classes
        missing = wanted - int(np.count_nonzero(drawn.given))
        order = _blind_order(terms, without)
        if order.size < drawn.ids.size + missing:
            raise too_few_images(terms, wanted, order.size, drawn)
        return order[drawn.ids.size : drawn.ids.size + missing]


class PricedBalanced:
    """Blind draws, all of them kept, up to the one that gives the last class its
    `initial_labels_per_class`. No label is asked for that is not paid for.
    """

    def next(self, terms: PoolTerms, oracle: Oracle, without: Ids, drawn: Drawn) -> Ids:
        per_class, order = terms.initial_labels_per_class, _blind_order(terms, without)
        held = np.bincount(drawn.labels.sets.classes, minlength=terms.num_classes)
        labels = int(np.count_nonzero(drawn.given))
        # As many labels as are missing must be drawn whatever they are, so none of them comes after
        # the last one needed.
        missing = int(np.maximum(per_class - held, 0).sum())
        scarce = int(held.argmin())
        if missing and (labels + missing) * terms.label_bits > terms.budget_bits + 1e-6:
            raise DataError(
                f"trial {terms.trial}: after {labels} blind draws class {scarce} has"
                f" {held[scarce]} of its {per_class} labels, and a budget of"
                f" {terms.budget_bits:.1f} bits does not hold the {missing} that are missing at"
                " least; raise the budget, lower schedule.initial_labels_per_class, or write"
                " schedule.initial_choice: uniform. `orchestrate plan` shows how many draws it"
                " takes if classes are equally large; a rare class takes more"
            )
        if drawn.ids.size + missing > order.size:
            raise DataError(
                f"trial {terms.trial}: class {scarce} has too few images for {per_class} initial"
                " labels; lower schedule.initial_labels_per_class"
            )
        return order[drawn.ids.size : drawn.ids.size + missing]


CHOICES: Final[Mapping[InitialChoiceName, Choice]] = {
    "random": Balanced(first=False),
    "first": Balanced(first=True),
    "uniform": Uniform(),
    "priced_balanced": PricedBalanced(),
}
"""Value of schedule.initial_choice -> what it draws. A strategy's is made by
orchestrator.labelling.cold_start.
"""


def _check(terms: PoolTerms) -> None:
    """Checks that the least that D_S costs is within the budget, and that some of it is left to
    train on.
    """
    price = terms.initial_labels_per_class * terms.num_classes * terms.label_bits
    if price > terms.budget_bits + 1e-6:
        raise DataError(
            f"trial {terms.trial}: the initial labels cost {price:.1f} bits, and the budget is"
            f" {terms.budget_bits:.1f}; buy fewer or raise it"
        )
    per_class = terms.validation.per_class
    if terms.validation.source == "initial_labels" and per_class >= terms.initial_labels_per_class:
        raise DataError(
            f"trial {terms.trial}: validation takes {per_class} of {terms.initial_labels_per_class}"
            " initial labels a class and leaves none to train on; lower validation.per_class"
        )


def _blind_order(terms: PoolTerms, without: Ids) -> Ids:
    """Every image that may be bought, in the order of blind draws: the one in which `random` takes
    the images of each class.
    """
    ids = np.setdiff1d(np.arange(terms.pool_items), without, assume_unique=True)
    return ids[np.lexsort((ids, keyed_uint64("initial", terms.seed, ids)))]


def _roles(terms: PoolTerms, drawn: Drawn) -> npt.NDArray[np.int8]:
    """Which of D_S are held out for validation: `per_class` of each class, or as many in all where
    D_S is of whatever classes.
    """
    ids = drawn.ids
    roles = np.full(ids.size, ROLES.index("initial"), np.int8)
    if terms.validation.source != "initial_labels":
        return roles
    held_out = terms.validation.per_class
    keys = keyed_uint64("carve", terms.seed, ids)
    if not described(terms.initial_choice).of_each_class or terms.task.several_labels:
        # Ids break ties, whatever the order of the draws.
        first = np.lexsort((ids, keys))[: held_out * terms.num_classes]
        roles[first] = ROLES.index("initial_validation")
        return roles
    labels = drawn.labels.sets.classes
    order = np.lexsort((ids, keys, labels))
    held = np.bincount(labels, minlength=terms.num_classes)
    rank = np.arange(ids.size) - (np.cumsum(held) - held)[labels[order]]
    roles[order[rank < held_out]] = ROLES.index("initial_validation")
    return roles
