"""The pool of one trial: who may be asked, what was answered, and what it cost. Every bit is
charged exactly once.

The committed segments are the only state; memory is derived from them. A process may die at any
instant, and another (or a zombie, at the same time) may continue: whoever commits a segment first
has decided, and everybody uses what is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from orchestrator.labelling.answers import PENDING, YES
from orchestrator.labelling.first_labels import Choice, FirstLabels
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import (
    Columns,
    Kind,
    Ledger,
    LedgerError,
    Segment,
    as_column,
)
from orchestrator.labelling.protocols import Oracle
from orchestrator.labelling.questions import Questions
from orchestrator.labelling.state import PoolState
from orchestrator.labelling.terms import PoolCounts, PoolTerms, Round
from trainers.stage import Ids, StageInputs

__all__ = ["Pool", "PoolCounts", "PoolService", "PoolState", "PoolTerms", "Round"]


class PoolService(Protocol):
    """What a trial talks to: a Pool, or an actor around one. Every call may be repeated without
    harm.
    """

    def open(self) -> bool:
        """Buys the initial and validation labels, and records answers that came meanwhile. Returns
        whether round 0 is over; while it is not, labels are to come, and no other call makes sense.
        """
        ...

    def training_inputs(self, after_round: int | None = None) -> StageInputs:
        """What a trainer may know after that round (0: before any question); by default after the
        rounds so far.
        """
        ...

    def eligible(self) -> Ids:
        """Images that the next round may ask about, ascending."""
        ...

    def quota(self, number: int) -> int:
        """Questions that round `number` (from 1) may ask: its quota and what earlier rounds did not
        charge, at most what the bits allow.
        """
        ...

    def round(self, number: int) -> Round | None:
        """The committed round, or None while it has no plan."""
        ...

    def ask(self, number: int, asked: Questions) -> Round:
        """Commits the plan of round `number`, and records the answers, or labels, that are there.

        A plan committed before wins and is returned: use the questions and answers of the result.
        """
        ...

    def counts(self, after_round: int | None = None) -> PoolCounts:
        """Images, questions and bits after that round; by default so far."""
        ...

    def head(self, after_round: int | None = None) -> tuple[int, str]:
        """How many segments the ledger has up to that round, and the SHA-256 of the last of
        them.
        """
        ...


class Pool:
    """The pool service in this process, for one caller at a time; other processes may have pools of
    their own on the same ledger.

    Opens itself at the first call, so that one built anew after a death may be called at once.
    """

    def __init__(
        self, terms: PoolTerms, ledger: Ledger, oracle: Oracle, choice: Choice | None = None
    ) -> None:
        self._terms = terms
        self._choice = choice
        self._ledger = ledger
        self._oracle = oracle
        self._folded: PoolState | None = None

    def open(self) -> bool:
        """Buys the initial and validation labels, and records answers that came meanwhile. Returns
        whether round 0 is over.

        Raises:
            LedgerError: the ledger is damaged, or was begun with other terms.
            DataError: a class has too few images for the labels asked for, or the budget does not
                hold them.
        """
        self._folded = None
        folded = self._buy_labels(self._ledger.read())
        if folded is None:
            return False
        self._folded = folded
        self._record_answers()
        return True

    def _buy_labels(self, segments: Sequence[Segment]) -> PoolState | None:
        """Takes round 0 as far as the oracle's labels allow; None while some are to come."""
        while True:
            found = fold(None, segments, self._terms.task)
            if segments:
                self._check_terms(segments[0])
            if found is not None:
                return found
            step = FirstLabels(self._terms, segments, self._choice).next(self._oracle)
            if step is None:
                return None
            kind, columns = step
            put = self._ledger.append(
                kind,
                trial=self._terms.trial,
                round=0,
                columns=columns,
                terms=self._terms.to_mapping(),
            )
            # Another process may have gone further meanwhile.
            segments = [*segments, put, *self._ledger.news()]

    def state(self) -> PoolState:
        """The fold of the segments that this object has seen.

        Raises:
            RuntimeError: round 0 is not over.
        """
        if self._folded is None and not self.open():
            raise RuntimeError("round 0 is not over: initial labels are to come")
        assert self._folded is not None
        return self._folded

    def training_inputs(self, after_round: int | None = None) -> StageInputs:
        """What a trainer may know after that round (0: before any question); by default after all
        so far.

        Raises:
            RuntimeError: the round is not over.
        """
        state = self._state_after(after_round)
        if state.rounds and not state.rounds[-1].over:
            raise RuntimeError(
                f"round {state.rounds[-1].number} is not over:"
                f" {int(np.sum(state.rounds[-1].answers == PENDING))} answers are to come"
            )
        return state.training_inputs()

    def eligible(self) -> Ids:
        return self.state().eligible()

    def quota(self, number: int) -> int:
        state = self.state()
        if not 1 <= number <= min(len(state.rounds) + 1, len(self._terms.quotas)):
            raise ValueError(
                f"round {number}: {len(state.rounds)} of {len(self._terms.quotas)} rounds have been"
                " asked"
            )
        if any(not one.over for one in state.rounds if one.number < number):
            raise RuntimeError(f"round {number}: the round before is not over")
        return state.quota(number)

    def round(self, number: int) -> Round | None:
        self._catch_up()
        rounds = self.state().rounds
        return rounds[number - 1] if 1 <= number <= len(rounds) else None

    def ask(self, number: int, asked: Questions) -> Round:
        if self.round(number) is None:
            asked = asked.ascending()
            self._check_plan(number, asked)
            columns = {
                "id": asked.ids.astype(np.int32),
                "guess": as_column(asked.sets, self._terms.num_classes),
                "confidence": asked.confidences,
            }
            segment = self._ledger.append(
                "plan", trial=self._terms.trial, round=number, columns=columns
            )
            self._folded = fold(self.state(), [segment])
        self._record_answers()
        return self.state().rounds[number - 1]

    def poll(self) -> Round | None:
        """Records the answers that came meanwhile. Returns the last round, None before any."""
        self._record_answers()
        rounds = self.state().rounds
        return rounds[-1] if rounds else None

    def counts(self, after_round: int | None = None) -> PoolCounts:
        """Images, questions and bits after that round; by default so far, an open round's answers
        among them.
        """
        return self._state_after(after_round).counts()

    def head(self, after_round: int | None = None) -> tuple[int, str]:
        """How many segments the ledger has up to that round (by default in all), and the SHA-256 of
        the last of them.
        """
        if after_round is None or after_round == len(self.state().rounds):
            return self._ledger.head
        until = [segment for segment in self._ledger.read() if segment.round <= after_round]
        self._folded = None
        return len(until), until[-1].digest

    def _state_after(self, number: int | None) -> PoolState:
        state = self.state()
        if number is None or number == len(state.rounds):
            return state
        if not 0 <= number < len(state.rounds):
            raise ValueError(f"round {number}: {len(state.rounds)} rounds have been asked")
        # Until it is folded anew, nothing has been seen of a ledger that is read again from its
        # start.
        self._folded = None
        segments = self._ledger.read()
        self._folded = fold(None, segments, self._terms.task)
        until = [segment for segment in segments if segment.round <= number]
        earlier = fold(None, until, self._terms.task)
        assert earlier is not None
        return earlier

    def _catch_up(self) -> None:
        """Segments that another process committed are folded in."""
        self._folded = fold(self.state(), self._ledger.news())

    def _record_answers(self) -> None:
        """Asks the oracle once for what is outstanding and commits what it gives."""
        self._catch_up()
        while self.state().rounds and not self.state().rounds[-1].over:
            one = self.state().rounds[-1]
            asked = one.asked.take(one.answers == PENDING)
            # The plan was checked against the budget when it was folded: whatever comes now is paid
            # for.
            buys = self._answers if self._terms.buys == "answers" else self._labels
            kind, columns = buys(asked)
            if not len(columns["id"]):
                return
            segment = self._ledger.append(
                kind, trial=self._terms.trial, round=one.number, columns=columns
            )
            self._folded = fold(self.state(), [segment])
            if np.array_equal(segment.columns["id"], np.asarray(columns["id"])):
                return
            # Another process was first with other answers: ask again for what is still open.
            self._catch_up()

    def _answers(self, asked: Questions) -> tuple[Kind, Columns]:
        """Returns the answers that the oracle has to these questions."""
        answers = self._oracle.answer(asked, self.state().repeats(asked))
        if answers.shape != asked.ids.shape or not np.all((answers >= PENDING) & (answers <= YES)):
            raise ValueError("the oracle must give one of 1, 0, -1, -2 for each question")
        came = answers != PENDING
        told = asked.take(came)
        return "answers", {
            "id": told.ids.astype(np.int32),
            "guess": as_column(told.sets, self._terms.num_classes),
            "answer": answers[came].astype(np.int8),
        }

    def _labels(self, asked: Questions) -> tuple[Kind, Columns]:
        """Returns the labels that the oracle has of the images of these questions."""
        labels = self._oracle.label(asked.ids, self._terms.task.label)
        came = labels.given != PENDING
        return "label_answers", {
            "id": asked.ids[came].astype(np.int32),
            "label": as_column(labels.sets.take(came), self._terms.num_classes),
            "answer": labels.given[came].astype(np.int8),
        }

    def _check_terms(self, first: Segment) -> None:
        wanted = self._terms.to_mapping()
        try:
            recorded = PoolTerms.from_mapping(first.terms, self._terms.task).to_mapping()
        except (KeyError, TypeError) as error:
            raise LedgerError(f"{first.place}: has no terms of a trial ({error})") from None
        if recorded["data"] != wanted["data"]:
            raise LedgerError(
                f"{self._ledger.location}: was begun with other data (fingerprint"
                f" {recorded['data'][:12] or 'unknown'}, and now it is {wanted['data'][:12]}); put"
                " the old data back, or choose another --out"
            )
        for key in wanted.keys() | recorded.keys():
            value = wanted.get(key)
            if recorded.get(key) != value:
                raise LedgerError(
                    f"{self._ledger.location}: was begun with {key} = {recorded.get(key)}, and this"
                    f" trial has {value}; choose another --out"
                )

    def _check_plan(self, number: int, asked: Questions) -> None:
        """Checks a plan before anything is committed; one that breaks a rule is a defect of the
        caller.
        """
        ids, sets, quota = asked.ids, asked.sets, self.quota(number)
        if len(sets) != ids.size or asked.confidences.size != ids.size:
            raise ValueError(f"round {number}: ids, classes and confidences must run in parallel")
        if ids.size > quota:
            raise ValueError(
                f"round {number}: {ids.size} questions, and quota and budget hold {quota}"
            )
        again = np.diff(ids) == 0
        if np.any(again & (np.diff(sets.codes()) == 0)):
            raise ValueError(f"round {number}: a question stands there twice")
        if np.any(again) and not self._terms.task.several_questions:
            raise ValueError(f"round {number}: an image is asked about twice")
        if not np.all(np.isin(ids, self.state().eligible())):
            raise ValueError(f"round {number}: an image is asked about that is not eligible")
        classes = sets.classes
        if np.any((classes < 0) | (classes >= self._terms.num_classes)) or np.any(sets.sizes < 1):
            raise ValueError(f"round {number}: each question must name a class that there is")
