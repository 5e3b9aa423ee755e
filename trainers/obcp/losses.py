"""Losses of ObCP (Zhang et al. 2022). b: rows of a batch, d: length of a contrastive feature, K:
keys in the queue, C: classes, M: refused classes in a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-8
"""Probabilities are raised to this before their logarithm is taken."""


def contrast(positive: Tensor, others: Tensor) -> Tensor:
    """-log of the share of exp(positive) in the sum of exp(positive) and exp(others), [b]: the
    contrastive loss of each row (Eq. 2).

    Args:
        positive: [b] similarity to the positive key, divided by the temperature. others: [b, K]
            the same to each other key.
    """
    return torch.logsumexp(torch.cat([positive[:, None], others], 1), 1) - positive


def replaced(others: Tensor, slots: Tensor, by: Tensor, valid: Tensor) -> Tensor:
    """Similarities [b, K] with those in `slots` exchanged for `by` where `valid` (Eq. 4).

    Args:
        slots: int64 [b, n], no slot of a row twice. by: [b, n]. valid: bool [b, n].
    """
    return others.scatter(1, slots, torch.where(valid, by, others.gather(1, slots)))


def negative(logits: Tensor, rows: Tensor, classes: Tensor) -> Tensor:
    """-log(1 - p_c) of each refused (row, class) whose probability p_c is 1 / C or more, else 0,
    [M]; finite for every finite logit (Eq. 6). Whether it is so carries no gradient.

    Args:
        logits: [b, C]. rows, classes: int64 [M].
    """
    picked = logits.index_select(0, rows)
    is_refused = functional.one_hot(classes, logits.shape[1]).bool()
    # log(1 - p_c) as a difference of logsumexps: 1 - p_c itself is 0 where the net is sure of c.
    others = torch.logsumexp(picked.masked_fill(is_refused, -torch.inf), 1)
    loss = torch.logsumexp(picked, 1) - others
    p = torch.softmax(picked.detach(), 1).gather(1, classes[:, None])[:, 0]
    return torch.where(p >= 1 / logits.shape[1], loss, torch.zeros_like(loss))
