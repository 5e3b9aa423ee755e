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

from trainers.mean_teacher.settings import MethodConfig

Ids = npt.NDArray[np.int64]
Classes = npt.NDArray[np.int32]

SCORE_ARRAYS: Final = (
    "item_ids",
    "guess",
    "confidence",
    "margin",
    "entropy",
    "raw_guess",
    "raw_confidence",
    "raw_margin",
    "raw_entropy",
    "val_guess_last",
    "test_guess_last",
    "test_guess_best_val",
)
"""Arrays of a stage's `scores` file (npz, no pickle).

item_ids int64 [P]: the pool, ascending. guess int32 [P]: teacher's best class among those not
refused. confidence float32 [P]: its probability, renormalised over those not refused. margin
float32 [P]: p1 - p2 over the same. entropy float32 [P]: nats, over the same. raw_guess,
raw_confidence, raw_margin, raw_entropy: the same four with no class left out. val_guess_last int32
[V]: unmasked teacher guesses on the validation images, by ascending id, after the last epoch.
test_guess_last, test_guess_best_val int32 [T]: unmasked teacher guesses on the test images after
the last epoch and at the best validation epoch (equal to the last where there is no validation).
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
    """[L] ascending, a subset of pool_ids."""
    labels: Classes
    """[L] class of each labelled image."""
    negative_ids: Ids
    """[M] ascending by (id, class), one entry a refused class, no pair twice."""
    negative_classes: Classes
    """[M]."""
    validation_ids: Ids
    """[V] ascending."""
    validation_labels: Classes
    """[V]."""

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
    method: MethodConfig
    """Cut to this stage (MeanTeacherConfig.for_stage)."""
    data_dir: Path
    """A prepared data cache (see trainers.data.items)."""
    inputs: StageInputs
    work_dir: Path
    """Where epoch checkpoints and artefacts are written; several attempts may share it."""
    attempt: str
    """Unique to this try; part of every file name it writes."""
    parent_model: Path | None = None
    """Model file of the stage before, where the method carries weights over."""
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
    """role -> file name: `scores` (SCORE_ARRAYS) and `model`."""
    metrics: dict[str, Any]
    """JSON values: val_top1_last, val_top1_best (percent or None), best_val_epoch (or None),
    epochs, steps, images, seconds, images_per_second, device, precision, backbone, parameters,
    loss_last, resumed_from_epoch (or None), history (one small object an epoch: epoch, loss,
    loss_class, loss_consistency, val_top1).
    """


class TrainingFailed(Exception):
    """A stage cannot be trained: the loss is not finite, or memory ran out. The message says where
    and what to try.
    """
