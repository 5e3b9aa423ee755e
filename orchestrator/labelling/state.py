"""What is known of every image of a trial: the value of a fold over its ledger."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import NO, SKIPPED, YES
from orchestrator.labelling.facts import Facts, positions
from orchestrator.labelling.questions import Questions
from orchestrator.labelling.terms import PoolCounts, PoolTerms, Round
from search_spaces.reading import schedule
from trainers.stage import Ids, StageInputs

NO_LABEL: Final = -1

UNKNOWN, INITIAL, BOUGHT, CONFIRMED, ELIMINATED, INITIAL_VALIDATION, SPLIT_VALIDATION = range(7)
"""Where an image's label came from. The last two are held out of the pool."""

BIT_SLACK: Final = 1e-6
"""Bits: budgets and prices are sums of log2 C in floating point; far below one question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """The fold's value. Its size follows images plus answers, not images times classes."""

    terms: PoolTerms
    facts: Facts
    origins: npt.NDArray[np.uint8]
    """[N], UNKNOWN .. SPLIT_VALIDATION."""
    planned: npt.NDArray[np.bool_]
    """[N], a question about it was ever committed, answered or not."""
    rounds: tuple[Round, ...]
    conflicts: int

    @property
    def in_pool(self) -> npt.NDArray[np.bool_]:
        """[N], False where the image is held out for validation."""
        return self.origins < INITIAL_VALIDATION

    @property
    def labels(self) -> npt.NDArray[Any]:
        """[N] the class of each image, NO_LABEL where it is unknown; of several the first."""
        held = self.facts.positives
        found = np.full(self.origins.size, NO_LABEL, held.classes.dtype)
        found[held.ids[::-1]] = held.classes[::-1]
        return found

    def _arrays(self) -> list[npt.NDArray[Any]]:
        facts = self.facts
        arrays: list[npt.NDArray[Any]] = [self.origins, self.planned]
        arrays += [facts.positives.ids, facts.positives.classes]
        arrays += [facts.negatives.ids, facts.negatives.classes]
        for one in self.rounds:
            arrays += [one.ids, one.sets.starts, one.sets.classes, one.confidences, one.answers]
        return arrays

    def nbytes(self) -> int:
        """Returns the bytes that all its arrays hold."""
        return sum(array.nbytes for array in self._arrays())

    def digest(self) -> str:
        """Hex SHA-256 of everything in it: equal states, equal digests."""
        digest = hashlib.sha256(
            repr(
                (self.terms, self.conflicts, [(one.number, one.wasted) for one in self.rounds])
            ).encode()
        )
        for array in self._arrays():
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
        return bought * self.terms.label_bits + charged * self.terms.unit_bits

    def affordable(self, before_round: int) -> int:
        """Questions, or labels where rounds buy them, that the bits left before that round hold."""
        left = self.terms.budget_bits - self.spent(before_round) + BIT_SLACK
        return max(0, math.floor(left / self.terms.unit_bits))

    @property
    def quotas(self) -> tuple[int, ...]:
        """Questions, or labels, of each round: as the terms say or, where labels were drawn until
        every class had enough, its share of what they left.
        """
        return (
            schedule.quotas(self.affordable(1), self.terms.split)
            if self.terms.split
            else self.terms.quotas
        )

    def quota(self, number: int) -> int:
        """What round `number` may ask for: its own quota and what earlier rounds did not
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
        """[N], True where a next round may ask: something is left to ask, under `never` nothing was
        asked before, and a label is bought once.
        """
        free: npt.NDArray[np.bool_] = self.terms.task.open(self.facts) & self.in_pool
        if self.terms.buys == "labels":
            free &= self.origins == UNKNOWN
        return free & ~self.planned if self.terms.requery == "never" else free

    def repeats(self, asked: Questions) -> npt.NDArray[np.int32]:
        """Returns [n] how often each question was answered in the rounds so far."""
        count, codes = np.zeros(len(asked), np.int32), asked.sets.codes()
        for one in self.rounds:
            at, present = places_of(one.asked, asked.ids, codes)
            count += present & (one.answers[at] >= NO) if len(one.asked) else 0
        return count

    def training_inputs(self) -> StageInputs:
        """All that a trainer may know, in the order that StageInputs asks for."""
        pool = self.in_pool
        yes, no = self.facts.positives, self.facts.negatives
        mine, refused = pool[yes.ids], pool[no.ids]
        held = yes.classes[~mine].astype(np.int32)
        validation_ids = np.flatnonzero(~pool)
        if self.terms.task.several_labels:
            truth = np.zeros((validation_ids.size, self.terms.num_classes), np.int32)
            truth[np.searchsorted(validation_ids, yes.ids[~mine]), held] = 1
            held = truth
        return StageInputs(
            pool_ids=np.flatnonzero(pool),
            label_ids=yes.ids[mine].astype(np.int64),
            labels=yes.classes[mine].astype(np.int32),
            negative_ids=no.ids[refused].astype(np.int64),
            negative_classes=no.classes[refused].astype(np.int32),
            validation_ids=validation_ids,
            validation_labels=held,
        )

    def counts(self) -> PoolCounts:
        quotas = self.quotas
        by_origin = np.bincount(self.origins, minlength=SPLIT_VALIDATION + 1)
        refused = np.zeros(self.origins.size, np.bool_)
        refused[self.facts.negatives.ids] = True
        negative_only = int(np.count_nonzero(refused & (self.origins == UNKNOWN)))
        answers = {
            kind: sum(int(np.count_nonzero(one.answers == kind)) for one in self.rounds)
            for kind in (YES, NO, SKIPPED)
        }
        charged = answers[YES] + answers[NO]
        labels = by_origin[INITIAL] + by_origin[INITIAL_VALIDATION]
        if self.terms.buys == "labels":
            labels += charged
            # What was asked for was no yes and no no.
            answers |= {YES: 0, NO: 0}
        questions = answers[YES] + answers[NO]
        return PoolCounts(
            labelled=int(by_origin[INITIAL : ELIMINATED + 1].sum()),
            initial=int(by_origin[INITIAL]),
            bought=int(by_origin[BOUGHT]),
            confirmed=int(by_origin[CONFIRMED]),
            eliminated=int(by_origin[ELIMINATED]),
            negative_only=negative_only,
            unasked=int(by_origin[UNKNOWN]) - negative_only,
            validation=int(by_origin[INITIAL_VALIDATION] + by_origin[SPLIT_VALIDATION]),
            rounds=sum(len(one.asked) > 0 for one in self.rounds),
            label_bits=float(labels * self.terms.label_bits),
            question_bits=float(questions),
            validation_bits=float(by_origin[SPLIT_VALIDATION] * self.terms.validation_label_bits),
            questions=questions,
            yes=answers[YES],
            no=answers[NO],
            skipped=answers[SKIPPED],
            wasted=sum(one.wasted for one in self.rounds),
            conflicts=self.conflicts,
            unspent=sum(quotas[one.number - 1] for one in self.rounds) - charged,
        )


def places_of(
    asked: Questions, ids: Ids, codes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Returns the index of each of these questions in a plan, and a mask of those in it."""
    at, found = positions(asked.ids, ids)
    held = asked.sets.codes()
    if not held.size:
        return at, found
    # Several questions about one image lie together.
    last = np.searchsorted(asked.ids, ids, "right")
    same = found & (held[at] == codes)
    first = at
    for step in range(1, int((last - first)[found].max(initial=0))):
        later = np.minimum(first + step, held.size - 1)
        hit = found & ~same & (first + step < last) & (held[later] == codes)
        at, same = np.where(hit, later, at), same | hit
    return at, same
