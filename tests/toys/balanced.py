"""One class an image, judged by a metric of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from orchestrator.labelling.tasks.multiclass import MultiClass
from trainers.metrics import Metric, Values


def balanced_accuracy(truth: Values, guesses: Values) -> float:
    """Returns the mean over the classes of the share of their images that are guessed right, in
    percent.
    """
    return 100.0 * float(np.mean([np.mean(guesses[truth == c] == c) for c in np.unique(truth)]))


BALANCED_ACCURACY: Final = Metric("balanced accuracy", "guess", balanced_accuracy)


@dataclass(frozen=True, kw_only=True)
class Balanced(MultiClass):
    """As `multiclass`, but every class counts alike, however many images it has."""

    name: ClassVar[str] = "balanced"
    metric: ClassVar[Metric] = BALANCED_ACCURACY
