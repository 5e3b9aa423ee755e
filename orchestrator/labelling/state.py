"""What is known of every image of a trial: a pure fold over the ledger's segments."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import NO, PENDING, SKIPPED, YES
from orchestrator.labelling.ledger import LedgerError, Segment
from orchestrator.labelling.terms import PoolCounts, PoolTerms, Round
from search_spaces.reading import schedule
from trainers.stage import Classes, Ids, StageInputs

NO_LABEL: Final = -1

UNKNOWN, INITIAL, CONFIRMED, ELIMINATED, INITIAL_VALIDATION, SPLIT_VALIDATION = range(6)
"""Where an image's label came from. The last two are held out of the pool."""

_ROLE_ORIGIN: Final = np.array([INITIAL, INITIAL_VALIDATION, SPLIT_VALIDATION], np.uint8)

_BIT_SLACK: Final = 1e-6
"""Bits: budgets and prices are sums of log2 C in floating point; far below one question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """The fold's value. Refused classes are kept as pairs, so its size follows images plus answers,
    not images times classes.
    """

    terms: PoolTerms
    labels: npt.NDArray[Any]
    """[N] int16 or int32, NO_LABEL where unknown."""
    origins: npt.NDArray[np.uint8]
    """[N], UNKNOWN .. SPLIT_VALIDATION."""
    planned: npt.NDArray[np.bool_]
    """[N], a question about it was ever committed, answered or not."""
    refused_ids: npt.NDArray[np.int32]
    """[M], ascending by (id, class), no pair twice."""
    refused_classes: npt.NDArray[Any]
    """[M] int16 or int32."""
    rounds: tuple[Round, ...]
    conflicts: int

    @property
    def in_pool(self) -> npt.NDArray[np.bool_]:
        return self.origins < INITIAL_VALIDATION

    def nbytes(self) -> int:
        """Bytes held by all arrays, those of the rounds too."""
        own = (getattr(self, field.name) for field in fields(self))
        rounds = (getattr(one, field.name) for one in self.rounds for field in fields(one))
        return sum(value.nbytes for value in (*own, *rounds) if isinstance(value, np.ndarray))

    def digest(self) -> str:
        """Hex SHA-256 of everything in it: equal states, equal digests."""
        digest = hashlib.sha256(
            repr(
                (self.terms, self.conflicts, [(one.number, one.wasted) for one in self.rounds])
            ).encode()
        )
        arrays: list[npt.NDArray[Any]] = [
            self.labels,
            self.origins,
            self.planned,
            self.refused_ids,
            self.refused_classes,
        ]
        for one in self.rounds:
            arrays += [one.ids, one.guesses, one.confidences, one.answers]
        for array in arrays:
            digest.update(f"{array.dtype.str}:{array.size}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def spent(self, before_round: int | None = None) -> float:
        """Bits charged to the budget, without rounds from `before_round` on."""
        bought = int(
            np.count_nonzero((self.origins == INITIAL) | (self.origins == INITIAL_VALIDATION))
        )
        charged = sum(
            one.charged for one in self.rounds if before_round is None or one.number < before_round
        )
        return bought * self.terms.label_bits + charged

    def affordable(self, before_round: int) -> int:
        """Whole questions that the bits left before that round can buy."""
        return max(0, math.floor(self.terms.budget_bits - self.spent(before_round) + _BIT_SLACK))

    @property
    def quotas(self) -> tuple[int, ...]:
        """Questions of each round: as the terms say or, where labels were drawn until every class
        had enough, its share of what they left.
        """
        return (
            schedule.quotas(self.affordable(1), self.terms.split)
            if self.terms.split
            else self.terms.quotas
        )

    def quota(self, number: int) -> int:
        """Questions that round `number` may ask: its own quota and what earlier rounds did not
        charge, as far as bits allow.
        """
        quotas = self.quotas
        carried = sum(
            quotas[one.number - 1] - one.charged for one in self.rounds if one.number < number
        )
        return min(quotas[number - 1] + carried, self.affordable(number))

    def eligible(self) -> Ids:
        """Images that a next round may ask about, ascending."""
        return np.flatnonzero(self.free())

    def free(self) -> npt.NDArray[np.bool_]:
        """[N], True where a next round may ask: no label, and under `never` no question before."""
        free: npt.NDArray[np.bool_] = self.origins == UNKNOWN
        return free & ~self.planned if self.terms.requery == "never" else free

    def repeats(self, ids: Ids, guesses: Classes) -> Classes:
        """How often each question was answered in the rounds so far."""
        count = np.zeros(ids.size, np.int32)
        for one in self.rounds:
            if one.ids.size:
                at, found = _positions(one.ids, ids)
                count += found & (one.guesses[at] == guesses) & (one.answers[at] >= NO)
        return count

    def training_inputs(self) -> StageInputs:
        """All that a trainer may know, in the order that StageInputs asks for."""
        pool = self.in_pool
        label_ids = np.flatnonzero(pool & (self.labels != NO_LABEL))
        validation_ids = np.flatnonzero(~pool)
        return StageInputs(
            pool_ids=np.flatnonzero(pool),
            label_ids=label_ids,
            labels=self.labels[label_ids].astype(np.int32),
            negative_ids=self.refused_ids.astype(np.int64),
            negative_classes=self.refused_classes.astype(np.int32),
            validation_ids=validation_ids,
            validation_labels=self.labels[validation_ids].astype(np.int32),
        )

    def counts(self) -> PoolCounts:
        quotas = self.quotas
        by_origin = np.bincount(self.origins, minlength=SPLIT_VALIDATION + 1)
        refused = np.zeros(self.origins.size, np.bool_)
        refused[self.refused_ids] = True
        negative_only = int(np.count_nonzero(refused & (self.origins == UNKNOWN)))
        answers = {
            kind: sum(int(np.count_nonzero(one.answers == kind)) for one in self.rounds)
            for kind in (YES, NO, SKIPPED)
        }
        questions = answers[YES] + answers[NO]
        return PoolCounts(
            labelled=int(by_origin[INITIAL] + by_origin[CONFIRMED] + by_origin[ELIMINATED]),
            initial=int(by_origin[INITIAL]),
            confirmed=int(by_origin[CONFIRMED]),
            eliminated=int(by_origin[ELIMINATED]),
            negative_only=negative_only,
            unasked=int(by_origin[UNKNOWN]) - negative_only,
            validation=int(by_origin[INITIAL_VALIDATION] + by_origin[SPLIT_VALIDATION]),
            rounds=sum(one.ids.size > 0 for one in self.rounds),
            label_bits=float(
                (by_origin[INITIAL] + by_origin[INITIAL_VALIDATION]) * self.terms.label_bits
            ),
            question_bits=float(questions),
            validation_bits=float(by_origin[SPLIT_VALIDATION] * self.terms.label_bits),
            questions=questions,
            yes=answers[YES],
            no=answers[NO],
            skipped=answers[SKIPPED],
            wasted=sum(one.wasted for one in self.rounds),
            conflicts=self.conflicts,
            unspent=sum(quotas[one.number - 1] for one in self.rounds) - questions,
        )


def fold(state: PoolState | None, segments: Iterable[Segment]) -> PoolState | None:
    """The state after `segments`; None while nothing is bought.

    Raises:
        LedgerError: a segment says what no trial with these terms can have done, such as asking
            beyond the budget.
    """
    for segment in segments:
        try:
            if segment.kind == "labels":
                _require(state is None, "labels are bought once, first")
                state = _after_labels(segment)
            else:
                _require(state is not None, "the initial labels are missing")
                assert state is not None
                _require(
                    segment.trial == state.terms.trial,
                    f"belongs to trial {segment.trial}, not {state.terms.trial}",
                )
                state = (
                    _after_plan(state, segment)
                    if segment.kind == "plan"
                    else _after_answers(state, segment)
                )
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


def _after_labels(segment: Segment) -> PoolState:
    terms = PoolTerms.from_mapping(segment.terms)
    ids = segment.columns["id"]
    _require_ids(ids, terms)
    labels = np.full(terms.pool_items, NO_LABEL, class_type(terms.num_classes))
    labels[ids] = segment.columns["label"]
    origins = np.zeros(terms.pool_items, np.uint8)
    origins[ids] = _ROLE_ORIGIN[segment.columns["role"]]
    state = PoolState(
        terms=terms,
        labels=labels,
        origins=origins,
        planned=np.zeros(terms.pool_items, np.bool_),
        refused_ids=np.empty(0, np.int32),
        refused_classes=np.empty(0, labels.dtype),
        rounds=(),
        conflicts=0,
    )
    _require(
        state.spent() <= terms.budget_bits + _BIT_SLACK, "the labels cost more than the budget"
    )
    return state


def _after_plan(state: PoolState, segment: Segment) -> PoolState:
    ids, guesses = segment.columns["id"], segment.columns["guess"]
    number = len(state.rounds) + 1
    _require(
        segment.round == number <= len(state.terms.quotas)
        and all(one.over for one in state.rounds),
        f"round {segment.round} is out of turn",
    )
    _require_ids(ids, state.terms)
    _require(len(segment) <= state.quota(number), "more questions than quota and budget hold")
    _require(bool(np.all(state.free()[ids])), "asks about an image that may not be asked")
    planned = state.planned.copy()
    planned[ids] = True
    asked = Round(
        number=number,
        ids=ids.astype(np.int64),
        guesses=guesses.astype(np.int32),
        confidences=segment.columns["confidence"].astype(np.float32),
        answers=np.full(len(segment), PENDING, np.int8),
        wasted=0,
    )
    return replace(state, planned=planned, rounds=(*state.rounds, asked))


def _after_answers(state: PoolState, segment: Segment) -> PoolState:
    """A yes makes the guess the label, a no refuses it; the last class left over is the label, for
    free.
    """
    ids, guesses, given = (segment.columns[name] for name in ("id", "guess", "answer"))
    _require(
        bool(state.rounds) and segment.round == len(state.rounds),
        f"answers round {segment.round} out of turn",
    )
    asked = state.rounds[-1]
    _require_ids(ids, state.terms)
    at, found = _positions(asked.ids, ids)
    _require(
        bool(np.all(found)) and bool(np.all(asked.guesses[at] == guesses)),
        "answers a question that was not asked",
    )
    _require(bool(np.all(asked.answers[at] == PENDING)), "answers a question twice")
    _require(bool(np.all((given >= SKIPPED) & (given <= YES))), "holds an answer that is none")
    answers = asked.answers.copy()
    answers[at] = given

    num_classes = state.terms.num_classes
    known = state.refused_ids.astype(np.int64) * num_classes + state.refused_classes
    keys = ids.astype(np.int64) * num_classes + guesses
    _, again = _positions(known, keys)
    yes, no = given == YES, given == NO
    # One answer an image: a yes against an earlier no can come only from an oracle that errs, and
    # the later answer stands.
    known = (
        known[~np.isin(known, keys[yes & again], assume_unique=True)]
        if np.any(yes & again)
        else known
    )
    known = np.sort(np.concatenate([known, keys[no & ~again]]), kind="stable")
    refused_ids = (known // num_classes).astype(np.int32)
    refused_classes = (known % num_classes).astype(state.labels.dtype)

    labels, origins = state.labels.copy(), state.origins.copy()
    labels[ids[yes]] = guesses[yes]
    origins[ids[yes]] = CONFIRMED
    last_left, label_left = _eliminated(refused_ids, refused_classes, ids[no], num_classes)
    labels[last_left] = label_left
    origins[last_left] = ELIMINATED
    return replace(
        state,
        labels=labels,
        origins=origins,
        refused_ids=refused_ids,
        refused_classes=refused_classes,
        rounds=(
            *state.rounds[:-1],
            replace(
                asked,
                answers=answers,
                wasted=asked.wasted + int(np.count_nonzero(again & (yes | no))),
            ),
        ),
        conflicts=state.conflicts + int(np.count_nonzero(again & yes)),
    )


def _eliminated(
    refused_ids: npt.NDArray[np.int32],
    refused_classes: npt.NDArray[Any],
    touched: npt.NDArray[Any],
    num_classes: int,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Those of `touched` with all classes refused but one, and that class."""
    first = np.searchsorted(refused_ids, touched, "left")
    held = np.searchsorted(refused_ids, touched, "right") - first
    full = held == num_classes - 1
    # The classes of one image lie together: what the sum of all classes lacks is the one not
    # refused.
    rows = refused_classes[first[full][:, None] + np.arange(num_classes - 1)].astype(np.int64)
    return touched[full], num_classes * (num_classes - 1) // 2 - rows.sum(axis=1)


def _positions(
    ascending: npt.NDArray[Any], wanted: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each wanted value stands in `ascending`, and whether it is there; the place of an
    absent one is any valid one.
    """
    if not ascending.size:
        return np.zeros(wanted.size, np.intp), np.zeros(wanted.size, np.bool_)
    at = np.minimum(np.searchsorted(ascending, wanted), ascending.size - 1)
    return at, ascending[at] == wanted


def _require_ids(ids: npt.NDArray[Any], terms: PoolTerms) -> None:
    inside = not ids.size or (int(ids[0]) >= 0 and int(ids[-1]) < terms.pool_items)
    _require(
        inside and bool(np.all(np.diff(ids) > 0)),
        "its ids are not ascending image numbers of this data set",
    )


def class_type(num_classes: int) -> npt.DTypeLike:
    """The narrowest of int16 and int32 that holds every class."""
    return np.int16 if num_classes <= np.iinfo(np.int16).max else np.int32
