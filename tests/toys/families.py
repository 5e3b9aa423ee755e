"""A task that asks about two classes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from orchestrator.labelling.protocols import Scores
from orchestrator.labelling.questions import ClassSets, Questions
from orchestrator.labelling.tasks.multiclass import MultiClass
from trainers.stage import Ids, StageInputs


@dataclass(frozen=True, kw_only=True)
class Families(MultiClass):
    """Asks "is it a 2k or a 2k + 1?" of images of which nothing is known, then which of the two."""

    name: ClassVar[str] = "families"
    yes_is_label: ClassVar[bool] = False

    def questions(
        self,
        images: Ids,
        scores: Scores,
        needs: tuple[str, ...],
        known: Callable[[], StageInputs],
        *,
        mask_refused: bool,
    ) -> tuple[Questions, Scores]:
        asked, rows = MultiClass.questions(
            self, images, scores, needs, known, mask_refused=mask_refused
        )
        alone = np.isin(asked.ids, known().negative_ids)
        sets = ClassSets.of(
            {guess} if one else {guess, guess ^ 1}
            for guess, one in zip(asked.guesses.tolist(), alone.tolist(), strict=True)
        )
        return Questions(ids=asked.ids, sets=sets, confidences=asked.confidences), rows
