"""Classes answered "no", kept as short lists per image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
