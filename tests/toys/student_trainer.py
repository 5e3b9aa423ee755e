"""Trains a softmax regression on labels and on a teacher's guesses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.toys.softmax_trainer import SoftmaxTrainer
from trainers.method import StagePlan


class StudentTrainer(SoftmaxTrainer):
    """Labels first, then the guesses that the teacher was sure of."""

    def __init__(self, plan: StagePlan, *args: Any, parent: Any, **named: Any) -> None:
        super().__init__(plan, *args, parent=parent, **named)
        if "scores" not in plan.reads or parent is None:
            return
        said = parent.scores()
        ids = np.array(said["item_ids"])
        taken = (said["confidence"] >= self.settings.sure) & ~np.isin(ids, self.ids)
        self.ids = np.concatenate([self.ids, ids[taken]])
        guesses = torch.from_numpy(np.array(said["guess"][taken])).long()
        self.labels = torch.cat([self.labels, guesses.to(self.labels.device)])
