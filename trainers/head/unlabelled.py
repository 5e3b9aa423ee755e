"""What a head learns from images without a label: soft targets, by the labels that reach an image
through a graph of neighbours, and by a first head that was trained without such images.

N: images, L of them labelled and first, U: the others, C: classes, R: refusals.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from trainers.negatives import suppress_negatives

Array = npt.NDArray[np.float64]

MOST: Final = 10_000
"""Images without a label that are learned from; of more, that many are drawn. It bounds time and
memory: all pairs are compared, some at once.
"""
REACH: Final = 0.8
"""Share of what an image receives that it passes on."""
STEPS: Final = math.ceil(math.log(1e-4) / math.log(REACH))
"""Each step shrinks the distance from the end by REACH: this many leave a ten-thousandth."""
ROUNDS: Final = 10
"""Of scaling classes and images in turn."""
FLOOR: Final = 1e-6
"""Share of every class in what the graph says, so that no neighbour's word is final."""
AT_ONCE: Final = 1 << 24
"""Pairs of images that are compared in one go."""


def soft_targets(
    x: Tensor,
    labels: Tensor,
    label_weights: Tensor,
    said: Tensor,
    refused_rows: Tensor,
    refused_classes: Tensor,
    *,
    neighbours: int,
    balanced: bool,
) -> Tensor:
    """Returns what each image without a label is probably of, float64 [U, C]; rows sum to 1, and
    refused classes have 0.

    It is the product of what the graph and the first head say, scaled where `balanced` such that
    the classes with a label have equal shares.

    Args:
        x: float64 [N, D], the labelled images first.
        labels: int64 [L].
        label_weights: float64 [L].
        said: float64 [U, C] logits of the first head.
        refused_rows: int64 [R] among the U; refused_classes: int64 [R]; never all C of a row.
        neighbours: of each image.
    """
    labelled, classes = len(labels), said.shape[1]
    allowed = torch.ones_like(said)
    allowed[refused_rows, refused_classes] = 0.0
    start = np.zeros((len(x), classes))
    start[np.arange(labelled), labels.cpu().numpy()] = label_weights.cpu().numpy()
    may = np.concatenate([np.ones((labelled, classes)), allowed.cpu().numpy()])
    reached = spread(graph(x, neighbours), start, may)[labelled:]
    total = reached.sum(1, keepdims=True)
    shares = np.divide(reached, total, out=np.zeros_like(reached), where=total > 0)
    by_graph = torch.from_numpy(shares).to(said).clamp_(min=FLOOR).log_()
    both = suppress_negatives(by_graph + said.log_softmax(1), refused_rows, refused_classes)
    targets = both.softmax(1)
    return even_shares(targets, torch.unique(labels)) if balanced else targets


def graph(x: Tensor, neighbours: int) -> csr_array:
    """Returns who is like whom, [N, N], symmetric, its largest eigenvalue at most 1: the cubed
    cosines of each image and its nearest, over the square roots of both images' sums.
    """
    count = len(x)
    neighbours = min(neighbours, max(count - 1, 0))
    unit = torch.nn.functional.normalize(x.float(), dim=1)
    near, alike = [], []
    step = max(AT_ONCE // max(count, 1), 1)
    for start in range(0, count, step):
        part = unit[start : start + step] @ unit.T
        part.diagonal(start).fill_(-2.0)
        values, at = part.topk(neighbours, 1)
        near.append(at.cpu().numpy())
        alike.append(values.double().cpu().numpy())
    if not near or not neighbours:
        return csr_array((count, count))
    rows = np.repeat(np.arange(count), neighbours)
    cosines = np.concatenate(alike).ravel().clip(min=0.0)
    one_way = csr_array(coo_array((cosines**3, (rows, np.concatenate(near).ravel())), (count,) * 2))
    both_ways = coo_array(one_way + one_way.T)
    sums = both_ways.sum(1)
    # An image like no other keeps what it has.
    scale = np.divide(1.0, np.sqrt(sums), out=np.zeros(count), where=sums > 0)
    first, second = both_ways.coords
    return csr_array((both_ways.data * scale[first] * scale[second], (first, second)), (count,) * 2)


def spread(graph: csr_array, start: Array, may: Array) -> Array:
    """Returns what has reached each image, [N, C]: near the one solution of Z = may * (REACH *
    graph @ Z + (1 - REACH) * start).

    Args:
        start: [N, C] what each image gives out of its own.
        may: [N, C] 0 where the class is refused, else 1.

    Source: Zhou et al. 2003, Learning with Local and Global Consistency; the refusals are ours.
    """
    given = (1 - REACH) * start * may
    reached = given
    for _ in range(STEPS):
        reached = given + REACH * may * (graph @ reached)
    return reached


def even_shares(targets: Tensor, classes: Tensor) -> Tensor:
    """Returns targets of which each of these classes has about the same sum; rows sum to 1 and
    zeros stay. Other classes are left as they are.

    Args:
        targets: float64 [U, C], rows sum to 1. classes: int64, no class twice.

    Source: Sinkhorn & Knopp 1967, rows and columns scaled in turn; ROUNDS of it, for where refusals
        forbid equal sums it has no end.
    """
    for _ in range(ROUNDS):
        sums = targets[:, classes].sum(0)
        factors = torch.ones_like(targets[:1])
        factors[0, classes] = sums.mean() / sums.clamp(min=1e-200)  # a sum of 0 stays so
        targets = targets * factors
        targets = targets / targets.sum(1, keepdim=True)
    return targets
