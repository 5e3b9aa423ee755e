"""What goes into the training of one stage and what comes out of it: plain data that can cross a
process border.

Imports numpy only: the processes that schedule stages exchange these without loading torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainers.artefacts import StageFiles
from trainers.method import Method, StagePlan
from trainers.metrics import TOP1, Metric

Ids = npt.NDArray[np.int64]
Classes = npt.NDArray[np.int32]

POOL_ARRAYS: Final = (
    "guess",
    "confidence",
    "margin",
    "entropy",
    "raw_guess",
    "raw_confidence",
    "raw_margin",
    "raw_entropy",
)
"""Arrays of what a model says of the pool, by ascending item id, that a stage keeps where its
method offers them.

guess int32 [P]: the best class among those not refused. confidence float32 [P]: its probability,
renormalised over those not refused. margin float32 [P]: p1 - p2 over the same. entropy float32 [P]:
nats, over the same. raw_guess, raw_confidence, raw_margin, raw_entropy: the same four with no class
left out.
"""

EXTRA_ARRAYS: Final = ("probabilities", "embedding")
"""Arrays that a stage keeps where a query asks for them and its method offers them.

probabilities float32 [P, C]: of each class, none left out. embedding float32 [P, D]: the features
of the network before its heads.
"""

SCORE_ARRAYS: Final = (
    "item_ids",
    *POOL_ARRAYS,
    "val_guess_last",
    "test_guess_last",
    "test_guess_best_val",
)
"""Arrays of a stage whose metric is top-1 and whose method offers all of POOL_ARRAYS, each a file.

item_ids int64 [P]: the pool, ascending. val_guess_last int32 [V]: guesses on the validation images
with no class left out, by ascending id, after the last epoch. test_guess_last, test_guess_best_val
int32 [T]: the same on the test images after the last epoch and at the best validation epoch (equal
to the last where there is no validation). Of another metric the last three are those of its array:
val_probabilities_last float32 [V, C], and so on.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageInputs:
    """All that a trainer may know of the labels: those bought or confirmed so far, and the classes
    answered "no".
    """

    pool_ids: Ids
    """[P] every training image of the trial, labelled or not, ascending; validation images are not
    among them.
    """
    label_ids: Ids
    """[L] ascending by (id, class), a subset of pool_ids; of an image with several classes an entry
    for each.
    """
    labels: Classes
    """[L] class of each entry."""
    negative_ids: Ids
    """[M] ascending by (id, class), one entry a refused class, no pair twice."""
    negative_classes: Classes
    """[M]."""
    validation_ids: Ids
    """[V] ascending."""
    validation_labels: npt.NDArray[np.integer[Any]]
    """[V] class of each; where an image may have several, 0 or 1 for each class, [V, C]."""

    def digest(self) -> str:
        """Hex SHA-256 of the inputs in canonical order; carries no trial id."""
        h = hashlib.sha256()
        for name in self.__dataclass_fields__:
            array = np.ascontiguousarray(getattr(self, name))
            h.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
            h.update(array.tobytes())
        return h.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRequest:
    """One stage to train. Paths are local to the machine, or shared by all of them."""

    key: str
    stage: int
    """0 is the training before any question; for messages and logs only."""
    seed: int
    draw: int = 0
    """Rounds with questions before this stage. Weights, batches and views are drawn by seed and
    draw: the stages of a trial independently of each other, those of two trials with equal seed and
    draw alike.
    """
    method: Method
    plan: StagePlan
    """Of this stage, by the method."""
    data_dir: Path
    """A prepared data cache (see trainers.data.items)."""
    inputs: StageInputs
    work_dir: Path
    """Where epoch checkpoints and artefacts are written; several attempts may share it."""
    attempt: str
    """Unique to this try; part of every file name it writes."""
    parent: StageFiles | None = None
    """Files of the stage before, where the plan reads any."""
    metric: Metric = TOP1
    """What validation and test images are scored by."""
    wants: tuple[str, ...] = ()
    """Score arrays of the pool beyond POOL_ARRAYS that a query asks for. No part of the key: what
    is trained is the same.
    """
    committed: StageFiles | None = None
    """Files of this very stage, trained when some of `wants` were not asked for: only those are
    made, by its model, and nothing is trained.
    """
    threads: int = 1
    device: str = "cpu"
    checkpoint_seconds: float = 5.0
    """Least time between two epoch checkpoints; 0 writes one after every epoch."""
    trial: str = ""
    """Id of the trial that asks, for the record; no result depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutcome:
    """What a trained stage leaves behind. `files` are names inside the request's work_dir."""

    files: dict[str, str]
    """role -> file name: `scores/NAME` of each array, `model`, and `state` where the method keeps
    it.
    """
    metrics: dict[str, Any]
    """JSON values: metric, validation_last, validation_best (percent or None), best_val_epoch (or
    None), epochs, steps, images, seconds, images_per_second, device, precision, backbone,
    parameters, loss_last, resumed_from_epoch (or None), history (one small object an epoch: epoch,
    the mean of each term of the loss, validation), and named (the method's own figures) where there
    are any.
    """


class Interrupted(Exception):
    """A rank was asked to end; the stage's state is saved, and another try goes on from it."""


class TrainingFailed(Exception):
    """A stage cannot be trained: the loss is not finite, or memory ran out. The message says where
    and what to try.
    """


class Diverged(TrainingFailed):
    """The loss is not finite, or found no minimum. Training is a function of settings, seed, draw
    and data: the same stage diverges again.
    """
