"""Guesses by prior scores: a softmax of scores over a temperature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers import predict
from trainers.artefacts import StageFiles
from trainers.data.items import StageData, to_device
from trainers.distributed.ranks import Ranks
from trainers.errors import DataError
from trainers.method import StagePlan
from trainers.negatives import Negatives
from trainers.prior.settings import PriorScores
from trainers.stage import Ids, StageInputs
from trainers.trainer import Figures, Split, Trainer

_VALUES_AT_ONCE: Final = 1 << 22
"""Scores that are worked on in one go."""

_FITTED_WITHIN: Final = 100.0
"""A fitted temperature lies between the spread of the scores over this and times this."""

_GOLDEN: Final = (5**0.5 - 1) / 2
_HALVINGS: Final = 80


class PriorTrainer(Trainer):
    """Learns at most a temperature. Every rank does all of it."""

    def __init__(
        self,
        plan: StagePlan,
        settings: PriorScores,
        data: StageData,
        inputs: StageInputs,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks,
        parent: StageFiles | None,
    ) -> None:
        if data.train_scores is None or data.test_scores is None:
            raise DataError(
                f"{data.folder}: has no prior scores (train_scores.npy, test_scores.npy), by which"
                " method prior guesses"
            )
        self._pool, self._test = data.train_scores, data.test_scores
        self._data, self._inputs, self._device = data, inputs, device
        self._negatives = Negatives(inputs, len(data.train), data.num_classes)
        self.fits = settings.temperature is None and len(inputs.validation_ids) > 0
        self.temperature = 1.0 if settings.temperature is None else settings.temperature
        self.steps = 0

    def epoch(self, number: int) -> Mapping[str, Tensor]:
        if self.fits:
            ids = self._inputs.validation_ids
            self.temperature = fitted(self._pool[ids], self._inputs.validation_labels)
        self.steps += 1
        # There is no loss to fall: what there is to see is the temperature.
        terms = torch.tensor([[0.0], [self.temperature]], dtype=torch.float64, device=self._device)
        return {"loss": terms[0], "temperature": terms[1]}

    def state(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        self.temperature, self.steps = float(state["temperature"]), int(state["steps"])

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        step = max(1, _VALUES_AT_ONCE // self._data.num_classes)
        parts = [
            self._said(split, ids[start : start + step], names)
            for start in range(0, max(1, len(ids)), step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _said(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        held, items = (
            (self._test, self._data.test) if split == "test" else (self._pool, self._data.train)
        )
        logits = to_device(held[ids], self._device).double() / self.temperature
        features = None
        if "embedding" in names:
            features = to_device(items[ids].reshape(len(ids), -1), self._device)
        refused = self._negatives.pairs(ids) if split == "pool" else None
        return predict.arrays(names, logits, features=features, refused=refused)

    def figures(self) -> Figures:
        return Figures(
            backbone="prior",
            precision="fp64",
            parameters=int(self.fits),
            steps=self.steps,
            images=self.steps * len(self._inputs.validation_ids) * self.fits,
        )


def fitted(scores: npt.NDArray[Any], classes: npt.NDArray[Any]) -> float:
    """Returns the temperature by which these classes are likeliest (temperature scaling, Guo et al.
    2017, arXiv:1706.04599).

    The mean negative log-likelihood is convex in 1 / temperature, so that halving an interval by
    golden sections finds its least. It is looked for between a hundredth and a hundred times of how
    far scores lie from the mean of their row: where every guess is right, the lower the better.

    Args:
        scores: [n, C], n > 0.
        classes: [n].
    """
    rows = scores.astype(np.float64)
    rows = rows - rows.mean(axis=1, keepdims=True)
    spread = float(np.sqrt(np.mean(rows**2)))
    if not spread:
        return 1.0
    logits = torch.from_numpy(rows / spread)
    true = torch.from_numpy(classes.astype(np.int64))

    def unlikely(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / np.exp(log_temperature), true))

    bound = float(np.log(_FITTED_WITHIN))
    return spread * float(np.exp(_least(unlikely, -bound, bound)))


def _least(of: Callable[[float], float], low: float, high: float) -> float:
    """Returns where a function with one valley has its least, the lowest place where the valley is
    flat: SciPy's bounded search stops anywhere in it, and a right guess has no temperature too low.
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = of(left), of(right)
    for _ in range(_HALVINGS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = of(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = of(right)
    return (low + high) / 2
