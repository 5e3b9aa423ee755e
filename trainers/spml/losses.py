"""Losses for images of which some labels are known. B: images of a batch, L: categories.

Each takes probabilities p [B, L] and states z [B, L] (1 present, -1 absent, 0 unknown), and is a
sum over all pairs divided by B L. What is known to be absent is a negative to every one of them.

Sources: Cole et al. 2021 (arXiv:2106.09708) for AN, WAN, AN-LS, IU, EPR and ROLE; Zhou et al. 2022
    (arXiv:2203.16219) for EM and APL. Neither has labels that are known to be absent.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

EPSILON: Final = 1e-5
"""Is added to a probability before its logarithm is taken (both published codes)."""


def nll(p: Tensor, epsilon: float = EPSILON) -> Tensor:
    """-log p, elementwise; finite at 0."""
    return -torch.log(p + epsilon)


def cross_entropy(p: Tensor, target: Tensor, epsilon: float = EPSILON) -> Tensor:
    """-target log p - (1 - target) log(1 - p), elementwise."""
    return target * nll(p, epsilon) + (1 - target) * nll(1 - p, epsilon)


def entropy(p: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Of a yes with probability p, in nats, elementwise."""
    return cross_entropy(p, p, epsilon)


def known_pairs(p: Tensor, z: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Cross entropy of the known pairs, 0 for the others, elementwise."""
    return (z > 0) * nll(p, epsilon) + (z < 0) * nll(1 - p, epsilon)


def assume_negative(
    p: Tensor, z: Tensor, *, weight: float = 1.0, epsilon: float = EPSILON
) -> Tensor:
    """AN: unknown pairs are negatives; WAN where their weight is 1 / (L - 1)."""
    unknown = weight * (z == 0) * nll(1 - p, epsilon)
    return (known_pairs(p, z, epsilon) + unknown).mean()


def assume_negative_smoothed(
    p: Tensor, z: Tensor, *, smoothing: float, epsilon: float = EPSILON
) -> Tensor:
    """AN-LS: AN, with a share of every label going to its opposite."""
    target = torch.full_like(p, smoothing).masked_fill(z > 0, 1 - smoothing)
    return cross_entropy(p, target, epsilon).mean()


def ignore_unknown(p: Tensor, z: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """IU: known pairs alone. With positives alone it is least where all is predicted present."""
    return known_pairs(p, z, epsilon).mean()


def _expected(p: Tensor, positives: float) -> Tensor:
    """How far the mean sum of an image's probabilities is from what is expected, squared, / L^2."""
    return ((p.sum(1).mean() - positives) / p.shape[1]).square()


def expected_positive(
    p: Tensor, z: Tensor, *, positives: float, epsilon: float = EPSILON
) -> Tensor:
    """EPR: known pairs, and the number of positives that is expected of an image of the batch."""
    return ignore_unknown(p, z, epsilon=epsilon) + _expected(p, positives)


def role(
    p: Tensor, z: Tensor, estimate: Tensor, *, positives: float, epsilon: float = EPSILON
) -> Tensor:
    """ROLE: prediction and estimated labels [B, L] learn from each other, each from the other held
    fixed, and both as in EPR.
    """

    def side(learns: Tensor, fixed: Tensor) -> Tensor:
        other = cross_entropy(learns, fixed.detach(), epsilon).mean()
        return expected_positive(learns, z, positives=positives, epsilon=epsilon) + other

    return (side(p, estimate) + side(estimate, p)) / 2


def entropy_maximisation(
    p: Tensor,
    z: Tensor,
    *,
    weight: float,
    soft: Tensor | None = None,
    soft_weight: float = 0.0,
    epsilon: float = EPSILON,
) -> Tensor:
    """EM: unknown pairs are rewarded by their entropy times `weight`. With `soft` [B, L], EM + APL:
    an unknown pair whose soft label is not negative learns that instead, at `soft_weight`.
    """
    unknown = -weight * entropy(p, epsilon)
    if soft is not None:
        learned = soft_weight * cross_entropy(p, soft.clamp(min=0), epsilon)
        unknown = torch.where(soft >= 0, learned, unknown)
    return (known_pairs(p, z, epsilon) + (z == 0) * unknown).mean()
