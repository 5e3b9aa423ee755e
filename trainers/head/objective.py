"""What a head minimises: cross entropy where the label is known or guessed at, and the loss of a
partial label where only classes are refused.

D: features, C: classes, L: labelled images, M: images with refused classes alone, R: refusals, U:
images with soft targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.negatives import suppress_negatives


@dataclass(frozen=True, slots=True, eq=False)
class SoftTargets:
    """`weight` times the mean cross entropy of targets that are distributions."""

    x: Tensor
    """float64 [U, D], U > 0."""
    targets: Tensor
    """float64 [U, C], rows sum to 1."""
    weight: float

    def __call__(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the value and its gradient, [D + 1, C]."""
        factor = self.weight / len(self.x)
        logs = torch.addmm(weights[-1], self.x, weights[:-1]).log_softmax(1)
        value = -factor * (self.targets * logs).sum()
        by_logit = logs.exp_().sub_(self.targets).mul_(factor)
        return value, torch.cat([self.x.T @ by_logit, by_logit.sum(0, keepdim=True)])


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """(weighted sum over labelled images of -log p_label + sum over the others of -log of the
    probability of the classes that are left) / L + l2 / 2 times the sum of squared weights, the
    bias free; where there are soft targets, plus theirs.

    Convex where nothing is refused. Without a label the sum is divided by M. All tensors are on one
    device.

    Source: the second sum is the likelihood of a set of candidate labels (Jin & Ghahramani 2002,
        Learning with Multiple Labels).
    """

    x: Tensor
    """float64 [L + M, D], the labelled images first."""
    labels: Tensor
    """int64 [L]."""
    label_weights: Tensor
    """float64 [L], 1 on average."""
    refused_rows: Tensor
    """int64 [R] row of each refusal among the last M rows."""
    refused_classes: Tensor
    """int64 [R]; never all C of a row."""
    num_classes: int
    l2: float
    soft: SoftTargets | None = None

    @property
    def weights(self) -> tuple[int, int]:
        """Shape of what is learned, [D + 1, C]: the bias is the last row."""
        return self.x.shape[1] + 1, self.num_classes

    def __call__(self, weights: Tensor) -> tuple[float, Tensor]:
        """Returns the objective and its gradient, [D + 1, C]."""
        terms, by_logit = self._terms(weights)
        divisor, matrix = self._divisor, weights[:-1]
        gradient = torch.empty_like(weights)
        torch.mm(self.x.T, by_logit, out=gradient[:-1])
        gradient[-1] = by_logit.sum(0)
        gradient /= divisor
        gradient[:-1] += self.l2 * matrix
        value = terms.sum() / divisor + self.l2 / 2 * matrix.square().sum()
        if self.soft is not None:
            more, slope = self.soft(weights)
            value, gradient = value + more, gradient.add_(slope)
        return float(value), gradient

    def terms(self, weights: Tensor) -> Tensor:
        """Returns [2] the part of the labels and that of the refusals."""
        return self._terms(weights)[0] / self._divisor

    @property
    def _divisor(self) -> int:
        return len(self.labels) or len(self.x) or 1

    def _terms(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both sums, [2], and their derivatives by the logits, [L + M, C]."""
        labelled = len(self.labels)
        logits = torch.addmm(weights[-1], self.x, weights[:-1])
        everything = logits.logsumexp(1)
        by_logit = (logits - everything[:, None]).exp_()
        own, weights = self.labels[:, None], self.label_weights
        surprise = everything[:labelled] - logits[:labelled].gather(1, own)[:, 0]
        sums = [(weights * surprise).sum()]
        # A sum, for no cell is hit twice.
        by_logit[:labelled].scatter_add_(1, own, -torch.ones_like(own, dtype=by_logit.dtype))
        by_logit[:labelled] *= weights[:, None]
        left = suppress_negatives(logits[labelled:], self.refused_rows, self.refused_classes)
        possible = left.logsumexp(1)
        sums.append((everything[labelled:] - possible).sum())
        by_logit[labelled:] -= (left - possible[:, None]).exp_()
        return torch.stack(sums), by_logit
