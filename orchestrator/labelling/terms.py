"""What a trial may buy, one round of questions, and the sums: plain values that cross process
borders.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import NO, PENDING, Answers
from search_spaces.reading.config import ValidationConfig
from trainers.stage import Classes, Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTerms:
    """What a trial may buy, and of what. Written into segment 0, so that a ledger can be replayed
    alone.
    """

    trial: str
    seed: int
    num_classes: int
    pool_items: int
    """Every training image, validation images too; ids are 0 to pool_items - 1."""
    initial_labels_per_class: int
    validation: ValidationConfig
    budget_bits: float
    quotas: tuple[int, ...]
    """Questions of each round; with `split` only as planned, see PoolState.quotas."""
    data: str = ""
    """Fingerprint of the data with its labels; empty in a ledger of 0.1.0."""
    requery: str
    """`pool`: an image without a label may be asked again in a later round; `never`: one question
    an image.
    """
    initial_choice: str = "random"
    """How D_S is chosen (search_spaces.reading.config.ScheduleConfig). Ledgers of 0.1.0 do not say
    it, and none of theirs was drawn blindly.
    """
    split: tuple[float, ...] = ()
    """Each round's share of the questions that the labels leave, where that number is known once
    they are bought: `priced_balanced`. Else empty.
    """

    @property
    def label_bits(self) -> float:
        """Price of one full label."""
        return math.log2(self.num_classes)

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self) | {"quotas": list(self.quotas), "split": list(self.split)}

    @classmethod
    def from_mapping(cls, terms: dict[str, Any]) -> PoolTerms:
        lists = {name: tuple(terms.get(name, ())) for name in ("quotas", "split")}
        return cls(**(terms | lists | {"validation": ValidationConfig(**terms["validation"])}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One committed plan and the answers so far. Ids ascend; the arrays run in parallel."""

    number: int
    ids: Ids
    guesses: Classes
    confidences: npt.NDArray[np.float32]
    answers: Answers
    """1 yes, 0 no, -1 skipped, -2 not answered yet."""
    wasted: int
    """Questions answered whose class had been refused for that image before: a bit that bought
    nothing.
    """

    @property
    def over(self) -> bool:
        return not np.any(self.answers == PENDING)

    @property
    def charged(self) -> int:
        """Questions answered yes or no."""
        return int(np.count_nonzero(self.answers >= NO))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounts:
    """Images by what is known of them (their sum with validation is every image), questions by
    answer, and bits spent.
    """

    labelled: int
    """Images to train on with a label: initial, confirmed or eliminated."""
    initial: int
    confirmed: int
    """Labelled by a yes."""
    eliminated: int
    """Labelled because all other classes were refused; free."""
    negative_only: int
    """No label, at least one class refused."""
    unasked: int
    """No label, no class refused."""
    validation: int
    rounds: int
    """Rounds so far in which anything was asked."""
    label_bits: float
    question_bits: float
    validation_bits: float
    """Price of a `split` validation set, beside the budget."""
    questions: int
    """Answered yes or no, that is charged."""
    yes: int
    no: int
    skipped: int
    wasted: int
    conflicts: int
    """A yes to a class refused before, by an oracle that errs: the later answer stands."""
    unspent: int
    """Questions that the rounds so far were granted and did not charge: carried to the next round,
    left over after the last.
    """
