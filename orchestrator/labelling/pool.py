"""The pool of one trial: who may be asked, what was answered, and what it cost. Every bit is
charged exactly once.

Nothing is true here that is not in a committed segment. A process may die at any instant, and
another (or a zombie, at the same time) may go on: whoever commits a segment first has decided, and
everybody uses what is committed.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import PENDING, YES
from orchestrator.labelling.first_labels import first_labels
from orchestrator.labelling.ledger import Ledger, LedgerError
from orchestrator.labelling.protocols import Oracle
from orchestrator.labelling.state import PoolState, class_type, fold
from orchestrator.labelling.terms import PoolCounts, PoolTerms, Round
from trainers.stage import Classes, Ids, StageInputs

__all__ = ["Pool", "PoolCounts", "PoolService", "PoolState", "PoolTerms", "Round"]


class PoolService(Protocol):
    """What a trial talks to: a Pool, or an actor around one. Every call may be repeated without
    harm.
    """

    def open(self) -> None:
        """The initial and validation labels are bought, and answers that came meanwhile are
        recorded.
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

    def ask(
        self, number: int, ids: Ids, guesses: Classes, confidences: npt.NDArray[np.float32]
    ) -> Round:
        """The plan of round `number` is committed, and the answers that are there are recorded.

        A plan committed before wins and is returned: use the ids, guesses and answers of the
        result.
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

    def __init__(self, terms: PoolTerms, ledger: Ledger, oracle: Oracle) -> None:
        self._terms = terms
        self._ledger = ledger
        self._oracle = oracle
        self._folded: PoolState | None = None

    def open(self) -> None:
        """The initial and validation labels are bought, and answers that came meanwhile are
        recorded.

        Raises:
            LedgerError: the ledger is damaged, or was begun with other terms.
            DataError: a class has too few images for the labels asked for, or the budget does not
                hold them.
        """
        self._folded = None
        found = fold(None, self._ledger.read())
        if found is None:
            columns = first_labels(self._terms, self._oracle)
            found = fold(
                None,
                [
                    self._ledger.append(
                        "labels",
                        trial=self._terms.trial,
                        round=0,
                        columns=columns,
                        terms=self._terms.to_mapping(),
                    )
                ],
            )
        assert found is not None
        self._check_terms(found.terms)
        self._folded = found
        self._record_answers()

    def state(self) -> PoolState:
        """The fold of the segments that this object has seen."""
        if self._folded is None:
            self.open()
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

    def ask(
        self, number: int, ids: Ids, guesses: Classes, confidences: npt.NDArray[np.float32]
    ) -> Round:
        if self.round(number) is None:
            order = np.argsort(ids, kind="stable")
            self._check_plan(number, ids[order], guesses)
            columns = {
                "id": ids[order].astype(np.int32),
                "guess": guesses[order].astype(class_type(self._terms.num_classes)),
                "confidence": confidences[order].astype(np.float32),
            }
            segment = self._ledger.append(
                "plan", trial=self._terms.trial, round=number, columns=columns
            )
            self._folded = fold(self.state(), [segment])
        self._record_answers()
        return self.state().rounds[number - 1]

    def poll(self) -> Round | None:
        """The answers that came meanwhile are recorded; the last round, None before any."""
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
        self._folded = fold(None, segments)
        earlier = fold(None, (segment for segment in segments if segment.round <= number))
        assert earlier is not None
        return earlier

    def _catch_up(self) -> None:
        """Segments that another process committed are folded in."""
        self._folded = fold(self.state(), self._ledger.news())

    def _record_answers(self) -> None:
        """The oracle is asked once for what is outstanding, and what it says is committed."""
        self._catch_up()
        while self.state().rounds and not self.state().rounds[-1].over:
            asked = self.state().rounds[-1]
            open_at = np.flatnonzero(asked.answers == PENDING)
            ids, guesses = asked.ids[open_at], asked.guesses[open_at]
            # The plan was checked against the budget when it was folded: whatever comes now is paid
            # for.
            answers = self._oracle.answer(ids, guesses, self.state().repeats(ids, guesses))
            if answers.shape != ids.shape or not np.all((answers >= PENDING) & (answers <= YES)):
                raise ValueError("the oracle must give one of 1, 0, -1, -2 for each question")
            came = answers != PENDING
            if not np.any(came):
                return
            columns = {
                "id": ids[came].astype(np.int32),
                "guess": guesses[came].astype(class_type(self._terms.num_classes)),
                "answer": answers[came].astype(np.int8),
            }
            segment = self._ledger.append(
                "answers", trial=self._terms.trial, round=asked.number, columns=columns
            )
            self._folded = fold(self.state(), [segment])
            if np.array_equal(segment.columns["id"], columns["id"]):
                return
            # Another process was first with other answers: ask again for what is still open.
            self._catch_up()

    def _check_terms(self, begun_with: PoolTerms) -> None:
        wanted, written = self._terms.to_mapping(), begun_with.to_mapping()
        if written["data"] != wanted["data"]:
            raise LedgerError(
                f"{self._ledger.location}: was begun with other data (fingerprint"
                f" {written['data'][:12] or 'unknown'}, and now it is {wanted['data'][:12]}); put"
                " the old data back, or choose another --out"
            )
        for key, value in wanted.items():
            if written[key] != value:
                raise LedgerError(
                    f"{self._ledger.location}: was begun with {key} = {written[key]}, and this"
                    f" trial has {value}; choose another --out"
                )

    def _check_plan(self, number: int, ids: Ids, guesses: Classes) -> None:
        """A plan that breaks a rule is a defect of the caller, and nothing is committed."""
        state = self.state()
        quota = self.quota(number)
        if ids.size > quota:
            raise ValueError(
                f"round {number}: {ids.size} questions, and quota and budget hold {quota}"
            )
        if np.any(np.diff(ids) == 0):
            raise ValueError(f"round {number}: an image is asked about twice")
        if not np.all(np.isin(ids, state.eligible(), assume_unique=True)):
            raise ValueError(f"round {number}: an image is asked about that is not eligible")
        if guesses.shape != ids.shape or np.any(
            (guesses < 0) | (guesses >= self._terms.num_classes)
        ):
            raise ValueError(f"round {number}: guesses must be one class an image")
