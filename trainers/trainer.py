"""What trains a stage, for those who write a training method: the part with torch, of one rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.artefacts import StageFiles
from trainers.data.items import StageData
from trainers.distributed.ranks import Ranks
from trainers.method import StagePlan
from trainers.stage import Ids, StageInputs

Split = Literal["pool", "validation", "test"]
"""Images that scores are asked of: `pool` and `validation` are training images, `test` is a set of
its own. Of the pool, `guess`, `confidence`, `margin` and `entropy` leave refused classes out.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the record of a stage says of its training, beside its results."""

    backbone: str
    precision: str
    parameters: int
    steps: int
    """Taken since the training began: where it goes on from a state, those before it too."""
    images: int
    """Seen in those steps."""
    named: Mapping[str, float] = field(default_factory=dict)
    """The method's own figures, finite numbers by names such as "pseudo labels per image": they
    stand in the stage's record, and the report has a column of each. Those that follow from the
    training alone: records of equal stages are equal.
    """


class Trainer(Protocol):
    """One stage in training, on one rank. The engine (trainers.run) calls `epoch` for each epoch of
    the plan and keeps the rest: it resumes, looks at losses, validates, and writes the files.

    What it does must be a function of the arguments it is made with: no global random numbers, no
    time. Several ranks make one each and must end with the same weights.
    """

    if_it_diverges: ClassVar[str] = "a lower learning rate"
    """What to try where the loss is not finite or huge; ends the sentence "try ..."."""
    if_memory_is_short: ClassVar[str] = "a smaller batch or network"

    def __init__(
        self,
        plan: StagePlan,
        settings: Any,
        data: StageData,
        inputs: StageInputs,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks,
        parent: StageFiles | None,
    ) -> None:
        """
        Args:
            settings: the method's object, with the plan's values; what the plan has not is unread.
            seed: of the trial's seed and draw.
            parent: files of the stage before, where the plan reads any. The state is loaded by the
                engine.
        """
        ...

    def epoch(self, number: int) -> Mapping[str, Tensor]:
        """Trains one epoch. Returns the terms of the loss by name, [steps] each, on the device, the
        same on every rank; the first is the loss itself.
        """
        ...

    def is_over(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Returns whether the training ends before the last epoch of its plan; asked before each
        epoch, with the entries of `history` of those before it (see StageOutcome). The answer is
        the same on every rank.
        """
        return False

    def state(self) -> dict[str, Any]:
        """Returns all that the next epoch depends on besides what the trainer was made with: plain
        values and tensors. A stage that dies goes on from it, and so does a stage that reads it.
        """
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        ...

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        """Returns these arrays of what the model now says of the images, by ascending id; the same
        on every rank.
        """
        ...

    def figures(self) -> Figures:
        """Returns the figures of the training so far."""
        ...

    def model(self) -> dict[str, Any]:
        """Returns the content of the stage's `model` file: what `predict_with` takes, and whatever
        a stage that reads it needs.
        """
        return self.state()

    def predictor(self) -> dict[str, Any]:
        """Returns the part of the model that scores depend on; a copy is kept of the best epoch."""
        return self.model()

    def predict_with(self, model: dict[str, Any]) -> None:
        """Lets scores be those of a `predictor`, or of a whole `model`; nothing is trained
        afterwards.
        """
        self.load(model)
