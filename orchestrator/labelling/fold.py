"""The fold over a ledger's segments: what each of them makes of the state of a trial's pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import PENDING, SKIPPED, YES
from orchestrator.labelling.facts import Facts, positions
from orchestrator.labelling.ledger import LedgerError, Segment, as_sets
from orchestrator.labelling.protocols import Task
from orchestrator.labelling.questions import ClassSets, Questions
from orchestrator.labelling.state import (
    BIT_SLACK,
    BOUGHT,
    CONFIRMED,
    ELIMINATED,
    INITIAL,
    INITIAL_VALIDATION,
    SPLIT_VALIDATION,
    UNKNOWN,
    PoolState,
    places_of,
)
from orchestrator.labelling.terms import PoolTerms, Round

_ROLE_ORIGIN: Final = np.array([INITIAL, INITIAL_VALIDATION, SPLIT_VALIDATION], np.uint8)


def fold(
    state: PoolState | None, segments: Iterable[Segment], task: Task | None = None
) -> PoolState | None:
    """Returns the state after `segments`; None while round 0 is not over.

    Args:
        task: of the trial; None: the one installed under the name that the ledger has.

    Raises:
        LedgerError: a segment says what no trial with these terms can have done, such as asking
            beyond the budget.
    """
    for segment in segments:
        try:
            if segment.round == 0 and segment.kind in ("labels", "label_plan", "label_answers"):
                _require(state is None, "labels are bought once, first")
                if segment.kind == "labels":
                    state = _after_labels(segment, task)
            else:
                _require(state is not None, "the initial labels are missing")
                assert state is not None
                _require(
                    segment.trial == state.terms.trial,
                    f"belongs to trial {segment.trial}, not {state.terms.trial}",
                )
                state = _AFTER[segment.kind](state, segment)
        except (_ImpossibleError, KeyError, TypeError) as error:
            raise LedgerError(
                f"{segment.place}: {error}; this ledger was not written by one trial: restore it"
                " from a copy"
            ) from error
    return state


class _ImpossibleError(Exception):
    pass


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise _ImpossibleError(problem)


def _after_labels(segment: Segment, task: Task | None) -> PoolState:
    terms = PoolTerms.from_mapping(segment.terms, task)
    ids, labels = segment.columns["id"], as_sets(segment.columns["label"])
    _require_ascending(Questions.singles(ids, np.zeros(len(ids), np.int32)), terms, one=True)
    _require(terms.task.several_labels or labels.single, "an image has no label, or several")
    _require_classes(labels, terms)
    origins = np.zeros(terms.pool_items, np.uint8)
    origins[ids] = _ROLE_ORIGIN[segment.columns["role"]]
    state = PoolState(
        terms=terms,
        facts=terms.task.know(Facts.none(terms.pool_items, terms.num_classes), ids, labels),
        origins=origins,
        planned=np.zeros(terms.pool_items, np.bool_),
        rounds=(),
        conflicts=0,
    )
    _require(state.spent() <= terms.budget_bits + BIT_SLACK, "the labels cost more than the budget")
    return state


def _after_plan(state: PoolState, segment: Segment) -> PoolState:
    number = len(state.rounds) + 1
    _require(
        segment.round == number <= len(state.terms.quotas)
        and all(one.over for one in state.rounds),
        f"round {segment.round} is out of turn",
    )
    asked = Questions(
        ids=segment.columns["id"].astype(np.int64),
        sets=as_sets(segment.columns["guess"]),
        confidences=segment.columns["confidence"].astype(np.float32),
    )
    _require_ascending(asked, state.terms)
    _require_classes(asked.sets, state.terms)
    _require(len(asked) <= state.quota(number), "more questions than quota and budget hold")
    _require(bool(np.all(state.free()[asked.ids])), "asks about an image that may not be asked")
    _require(bool(np.all(asked.sets.sizes > 0)), "asks about no class")
    planned = state.planned.copy()
    planned[asked.ids] = True
    answers = np.full(len(asked), PENDING, np.int8)
    begun = Round(number=number, asked=asked, answers=answers, wasted=0)
    return replace(state, planned=planned, rounds=(*state.rounds, begun))


def _after_answers(state: PoolState, segment: Segment) -> PoolState:
    _require(state.terms.buys == "answers", "has answers, and this trial's rounds buy labels")
    given = segment.columns["answer"]
    ids, sets = segment.columns["id"].astype(np.int64), as_sets(segment.columns["guess"])
    told = Questions(ids=ids, sets=sets, confidences=np.zeros(len(ids), np.float32))
    _require_ascending(told, state.terms)
    one = _answered(state, segment, lambda one: places_of(one.asked, ids, sets.codes()))
    learned = state.terms.task.learn(state.facts, told, given)
    origins = state.origins.copy()
    # An image that has a class now, and had none: told by a yes, or left over by the others.
    gained = learned.facts.has_positive() & (origins == UNKNOWN)
    origins[gained] = ELIMINATED
    said_yes = told.ids[given == YES]
    origins[said_yes[gained[said_yes]]] = CONFIRMED
    return replace(
        state,
        facts=learned.facts,
        origins=origins,
        rounds=(*state.rounds[:-1], replace(one, wasted=one.wasted + learned.wasted)),
        conflicts=state.conflicts + learned.conflicts,
    )


def _after_given(state: PoolState, segment: Segment) -> PoolState:
    terms = state.terms
    _require(terms.buys == "labels", "has labels, and this trial's rounds buy answers")
    ids, labels = segment.columns["id"].astype(np.int64), as_sets(segment.columns["label"])
    _require_ascending(Questions.singles(ids, np.zeros(len(ids), np.int32)), terms, one=True)
    one = _answered(state, segment, lambda one: positions(one.ids, ids))
    came = np.equal(segment.columns["answer"], YES)
    ids, labels = ids[came], labels.take(came)
    _require(terms.task.several_labels or labels.single, "an image has no label, or several")
    _require_classes(labels, terms)
    origins = state.origins.copy()
    # The price of an initial label is counted by its origin.
    origins[ids[origins[ids] != INITIAL]] = BOUGHT
    return replace(
        state,
        facts=terms.task.know(state.facts, ids, labels),
        origins=origins,
        rounds=(*state.rounds[:-1], one),
    )


_AFTER: Final = {
    "plan": _after_plan,
    "answers": _after_answers,
    "label_answers": _after_given,
}
"""Kind of a segment of a round from 1 -> what it comes to."""


def _answered(
    state: PoolState,
    segment: Segment,
    places: Callable[[Round], tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]],
) -> Round:
    """Returns the last round with the answers of a segment."""
    _require(
        bool(state.rounds) and segment.round == len(state.rounds),
        f"answers round {segment.round} out of turn",
    )
    one, given = state.rounds[-1], segment.columns["answer"]
    at, present = places(one)
    _require(bool(np.all(present)), "answers a question that was not asked")
    _require(bool(np.all(one.answers[at] == PENDING)), "answers a question twice")
    _require(bool(np.all((given >= SKIPPED) & (given <= YES))), "holds an answer that is none")
    answers = one.answers.copy()
    answers[at] = given
    return replace(one, answers=answers)


def _require_ascending(asked: Questions, terms: PoolTerms, *, one: bool = False) -> None:
    ids = asked.ids
    inside = not ids.size or (int(ids[0]) >= 0 and int(ids[-1]) < terms.pool_items)
    steps = np.diff(ids)
    rises = bool(np.all(steps > 0))
    if not rises and terms.task.several_questions and not one:
        rises = bool(np.all((steps > 0) | ((steps == 0) & (np.diff(asked.sets.codes()) > 0))))
    _require(inside and rises, "its ids are not ascending image numbers of this data set")


def _require_classes(sets: ClassSets, terms: PoolTerms) -> None:
    classes = sets.classes
    _require(
        not classes.size or (int(classes.min()) >= 0 and int(classes.max()) < terms.num_classes),
        "names a class that there is not",
    )
