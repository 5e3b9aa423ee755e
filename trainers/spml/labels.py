"""What is known of images and what is made of predictions. n: images, L: categories."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.stage import Ids, StageInputs

NONE: Final = -1.0
"""A soft label that is not there: 0 is one."""


def known_states(inputs: StageInputs, num_classes: int) -> npt.NDArray[np.int8]:
    """Returns [P, L] what is known of the images of the pool: 1 present, -1 absent, 0 unknown."""
    states = np.zeros((len(inputs.pool_ids), num_classes), np.int8)
    for ids, classes, value in (
        (inputs.negative_ids, inputs.negative_classes, -1),
        (inputs.label_ids, inputs.labels, 1),
    ):
        states[np.searchsorted(inputs.pool_ids, ids), classes] = value
    return states


def pseudo_labels(
    probabilities: npt.NDArray[np.float32],
    states: npt.NDArray[np.int8],
    threshold: float,
    *,
    keep_observed: bool,
) -> npt.NDArray[np.int8]:
    """Returns [n, L] 1 where the probability is above the threshold, else -1.

    Args:
        probabilities: [n, L].
        states: [n, L]; what is known to be absent stands, and where `keep_observed` what is known
            to be present too.

    Source: Arroyo 2023, Pseudo Labels for Single Positive Multi-Label Learning, algorithm 1, which
        keeps nothing of what is known.
    """
    found = np.where(probabilities > threshold, 1, -1).astype(np.int8)
    return np.where((states < 0) | (keep_observed & (states > 0)), states, found)


def rows_of(ids: Ids, held: Ids) -> npt.NDArray[np.int64]:
    """Returns the places of `ids` in the ascending ids `held`, which has all of them."""
    return np.searchsorted(held, ids).astype(np.int64)


def taken_for_absent(states: Tensor, *, share: float, epochs: int) -> Tensor:
    """Returns int64 [L] how many unknown pairs of each category an epoch takes for absent, so that
    `epochs` of them take this share.
    """
    unknown = (states == 0).sum(0)
    return (share * unknown.double() / epochs).floor().long()


def asymmetric_pseudo_labels(
    probabilities: Tensor, states: Tensor, soft: Tensor, counts: Tensor
) -> Tensor:
    """Returns the soft labels [n, L] with more of them: of each category the `counts` [L] unknown
    pairs of the least probability that have none, whose probabilities they are from now on. Of
    equal ones the first images.

    Source: Zhou et al. 2022 (arXiv:2203.16219), asymmetric pseudo-labelling.
    """
    free = (states == 0) & (soft == NONE)
    # Those that are not free come last, and are never taken.
    order = torch.where(free, probabilities, torch.inf).argsort(dim=0, stable=True)
    place = torch.empty_like(order)
    ranks = torch.arange(len(order), device=order.device)[:, None].expand_as(order)
    place.scatter_(0, order, ranks)
    return torch.where(free & (place < counts), probabilities, soft)
