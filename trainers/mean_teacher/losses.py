"""Losses and ramps of Mean Teacher. B: batch size, C: classes, M: refused classes in a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def class_loss(logits: Tensor, labels: Tensor, batch_size: float) -> Tensor:
    """Cross entropy of the labelled rows, summed and divided by the size of the whole batch, not by
    the number of labels.

    So its weight is the labelled share of the batch (Tarvainen & Valpola 2017, published code).

    Args:
        logits: [B_l, C], labelled rows alone. labels: int64 [B_l].
    """
    return functional.cross_entropy(logits, labels, reduction="sum") / batch_size


def consistency_mse(logits: Tensor, target: Tensor, batch_size: float) -> Tensor:
    """Squared distance of softmax(logits) to the target probabilities, both [b, C]; the mean over
    classes is inside: the sum is divided by B * C.
    """
    return (torch.softmax(logits, 1) - target).square().sum() / (batch_size * logits.shape[1])


def consistency_kl(logits: Tensor, target: Tensor, batch_size: float) -> Tensor:
    """KL(target || softmax(logits)) summed over rows and divided by B; a class with target 0 adds
    0.
    """
    return functional.kl_div(torch.log_softmax(logits, 1), target, reduction="sum") / batch_size


def logit_distance(class_logits: Tensor, consistency_logits: Tensor, batch_size: float) -> Tensor:
    """Squared distance of the two heads' logits, summed and divided by B * C; both heads get its
    gradient.
    """
    return (class_logits - consistency_logits).square().sum() / (batch_size * class_logits.shape[1])


def negative_loss(logits: Tensor, rows: Tensor, classes: Tensor, batch_size: float) -> Tensor:
    """-log(1 - p_c) summed over the refused (row, class) pairs and divided by B; finite for every
    finite logit.

    Source: the complementary-label log loss (Chou et al. 2020, arXiv:2007.02235, SCL-NL).
    """
    picked = logits.index_select(0, rows)
    refused = functional.one_hot(classes, logits.shape[1]).bool()
    # log(1 - p_c) as a difference of logsumexps: 1 - p_c itself is 0 when the student is sure of c.
    others = torch.logsumexp(picked.masked_fill(refused, -torch.inf), 1)
    return (torch.logsumexp(picked, 1) - others).sum() / batch_size


def entropy_loss(logits: Tensor, batch_size: float) -> Tensor:
    """Entropy of softmax(logits) in nats, summed over the rows and divided by B."""
    log_p = torch.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum() / batch_size


def consistency_ramp(epoch: int, rampup_epochs: float) -> float:
    """Share of the consistency weight in this epoch, a whole number from 0: exp(-5 (1 - min(e, R) /
    R)^2) (Laine & Aila 2017).
    """
    if rampup_epochs <= 0:
        return 1.0
    left = 1.0 - min(float(epoch), rampup_epochs) / rampup_epochs
    return math.exp(-5.0 * left * left)


def cosine_rate(learning_rate: float, epoch: float, horizon: float) -> float:
    """Learning rate at a fractional epoch: half a cosine that reaches zero at `horizon` epochs, and
    stays there.
    """
    return learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(epoch / horizon, 1.0)))


def warmed_up(learning_rate: float, epoch: float, warmup_epochs: float, start: float) -> float:
    """Learning rate before the cosine: a straight line from `start` to `learning_rate` over the
    first epochs (Tarvainen & Valpola 2017, published code).
    """
    if epoch >= warmup_epochs:
        return learning_rate
    return start + (learning_rate - start) * epoch / warmup_epochs
