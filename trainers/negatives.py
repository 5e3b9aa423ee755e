"""Classes answered "no": kept as short lists per image, and left out of what a network says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.stage import Ids, StageInputs


class Negatives:
    """The refused classes of each image: M entries for M answers, whatever the number of images and
    classes.

    A refusal that the image's own label contradicts is left out, and so are all refusals of an
    image that leave it no class: both come from wrong answers alone.
    """

    def __init__(self, inputs: StageInputs, items: int, num_classes: int) -> None:
        ids, classes = inputs.negative_ids, inputs.negative_classes.astype(np.int64)
        label_of = np.full(items, -1, np.int64)
        label_of[inputs.label_ids] = inputs.labels
        exhausted = np.bincount(ids, minlength=items) >= num_classes
        keep = (label_of[ids] != classes) & ~exhausted[ids]
        self._classes = classes[keep]
        self._start = np.concatenate(
            [np.zeros(1, np.int64), np.cumsum(np.bincount(ids[keep], minlength=items))]
        )

    def __len__(self) -> int:
        return len(self._classes)

    def pairs(self, ids: Ids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(row, class) of every refusal of these images, rows counting from 0 in the order of `ids`
        and ascending.
        """
        counts = self._start[ids + 1] - self._start[ids]
        rows = np.repeat(np.arange(len(ids)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, self._classes[self._start[ids][rows] + within]


def suppress_negatives(logits: Tensor, rows: Tensor, classes: Tensor) -> Tensor:
    """Logits whose softmax gives each refused (row, class) exactly zero and keeps the ratios of the
    others.

    Args:
        logits: float32 or float64 [b, C], left as they are. rows, classes: int64 [M]; never all C
            classes of a row.

    Source: Hu et al. 2020 (arXiv:2009.06168), negative label suppression: the teacher's logit of a
        refused class becomes a large negative number.
    """
    # A fill, not an addition: exp underflows to an exact zero. Finite, for -inf makes NaN of 0 *
    # log 0. Fp32 is the narrowest type that holds it.
    flat = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits.clone()
    flat.view(-1).index_fill_(0, rows * logits.shape[1] + classes, -1e6)
    return flat
