"""What a trial may buy, one round of questions, and the sums: plain values that cross process
borders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.catalogue import INSTALLED
from orchestrator.labelling.answers import NO, PENDING, Answers
from orchestrator.labelling.protocols import Task
from orchestrator.labelling.questions import ClassSets, Questions
from orchestrator.labelling.tasks.multiclass import MultiClass
from search_spaces.reading.config import Bought, ValidationConfig
from trainers.errors import UserError
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
    """Questions, or labels, of each round; with `split` only as planned, see PoolState.quotas."""
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

    buys: Bought = "answers"
    """What the rounds buy of the images that they plan: whether a guess is right, or labels."""
    task: Task = field(default_factory=MultiClass)

    @property
    def label_bits(self) -> float:
        """Price of one label."""
        return self.task.prices(self.num_classes)[self.task.label]

    @property
    def validation_label(self) -> str:
        """The price by which images of a `split` validation set are labelled."""
        return str(getattr(self.task, "validation_label", self.task.label))

    @property
    def validation_label_bits(self) -> float:
        """That price."""
        return self.task.prices(self.num_classes)[self.validation_label]

    @property
    def unit_bits(self) -> float:
        """Price of one of what the rounds buy."""
        return 1.0 if self.buys == "answers" else self.label_bits

    def to_mapping(self) -> dict[str, Any]:
        """Returns the terms as JSON values. What earlier ledgers could not say stands there where
        it is something else: the task unless it is `multiclass`, labels that rounds buy.
        """
        found = asdict(self) | {"quotas": list(self.quotas), "split": list(self.split)}
        settings = found.pop("task")
        if self.buys == "answers":
            del found["buys"]
        if self.validation.source != "share":
            del found["validation"]["share"]
        said = {"name": self.task.name, **settings}
        return found if said == {"name": MultiClass.name} else found | {"task": said}

    @classmethod
    def from_mapping(cls, terms: Mapping[str, Any], task: Task | None = None) -> PoolTerms:
        """Returns the terms that `to_mapping` described.

        Args:
            task: one whose class is taken where the terms name it; else the class is looked up
                among those installed.

        Raises:
            KeyError, TypeError: it is no such description.
            UserError: its task is not installed.
        """
        said = dict(terms.get("task", {"name": MultiClass.name}))
        name = said.pop("name")
        if task is not None and task.name == name:
            task = type(task)(**said)
        else:
            try:
                task = INSTALLED.load("task", name)(**said)
            except KeyError:
                raise UserError(
                    f"trial {terms['trial']} is of the task {name!r}, which is not installed here;"
                    " install the package that offers it, or read the sweep from Python and hand"
                    " its class over"
                ) from None
        lists = {key: tuple(terms.get(key, ())) for key in ("quotas", "split")}
        validation = ValidationConfig(**terms["validation"])
        return cls(**{**terms, **lists, "validation": validation, "task": task})


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One committed plan and the answers so far."""

    number: int
    asked: Questions
    answers: Answers
    """[n] 1 yes, 0 no, -1 skipped, -2 not answered yet. In a round that buys labels 1 is a label
    given.
    """
    wasted: int
    """Questions answered whose answer followed from what was known before: a bit that bought
    nothing.
    """

    @property
    def ids(self) -> Ids:
        """[n] the image of each question, ascending."""
        return self.asked.ids

    @property
    def sets(self) -> ClassSets:
        """[n] the classes that each is about."""
        return self.asked.sets

    @property
    def guesses(self) -> Classes:
        """[n] the class that each is about; ValueError where one is about several."""
        return self.asked.guesses

    @property
    def confidences(self) -> npt.NDArray[np.float32]:
        """[n] the model's probability of a yes."""
        return self.asked.confidences

    @property
    def over(self) -> bool:
        return not np.any(self.answers == PENDING)

    @property
    def charged(self) -> int:
        """Questions answered yes or no, or labels given."""
        return int(np.count_nonzero(self.answers >= NO))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounts:
    """Images by what is known of them (their sum with validation is every image), questions by
    answer, and bits spent.
    """

    labelled: int
    """Images to train on with a label: initial, bought later, confirmed or eliminated."""
    initial: int
    bought: int
    """Labelled in a round that buys labels."""
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
    """Questions, or labels, that the rounds so far were granted and did not charge: carried to the
    next round, left over after the last.
    """
