"""What the model said of each image over the epochs before a round, and how unsure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.distributed.ranks import Ranks
from trainers.obcp.losses import SMALLEST
from trainers.stage import Ids

Window = tuple[int, int]
Probabilities = npt.NDArray[np.float32]


class History:
    """Sums of probabilities over windows of epochs, for the images of a pool.

    Exact where rounds are closer than their windows are long: each window has a sum of its own,
    which is less to keep than the predictions of its epochs. P: images, C: classes.
    """

    def __init__(
        self, means: Sequence[Window], recent: Sequence[Window], images: int, classes: int
    ) -> None:
        self._shape = images, classes
        # Rounds that ask after the same epoch share a window.
        self._windows = tuple(
            dict.fromkeys(
                (kind, *window)
                for kind, windows in (("mean", means), ("recent", recent))
                for window in windows
            )
        )
        self._held: dict[tuple[str, int, int], tuple[Tensor, Tensor]] = {}

    def needs(self, epoch: int) -> bool:
        """Returns whether the predictions of an epoch are added up."""
        return any(first <= epoch < stop for _, first, stop in self._windows)

    def add(self, epoch: int, rows: Ids, probabilities: Probabilities) -> None:
        """Adds what was said at the end of an epoch of some images.

        Args:
            rows: [n] of the pool, each once. probabilities: [n, C].
        """
        at, said = torch.from_numpy(rows), torch.from_numpy(probabilities)
        for window in self._windows:
            kind, first, stop = window
            if first <= epoch < stop:
                total, count = self._held.setdefault(
                    window, (torch.zeros(self._shape), torch.zeros(self._shape[0]))
                )
                # log(0) would outweigh everything else.
                total[at] += said if kind == "mean" else said.clamp(min=SMALLEST).log()
                count[at] += 1

    def uncertainty(self, epoch: int) -> npt.NDArray[np.float32] | None:
        """Returns float32 [P] of each image, for a round after so many epochs: the cross entropy of
        its mean probabilities and those of each recent epoch, summed over these (Eq. 7); 0 for an
        image of which nothing was said. None where nothing was added up.
        """
        found = {
            window[0]: (window, self._held[window]) for window in self._held if window[2] == epoch
        }
        if len(found) < 2:
            return None
        (_, (total, count)), ((_, first, stop), (logs, said)) = found["mean"], found["recent"]
        mean = total / count.clamp(min=1)[:, None]
        # Of training's own views some epochs may lack an image.
        logs = logs * ((stop - first) / said.clamp(min=1))[:, None]
        crossed: npt.NDArray[np.float32] = -(mean * logs).sum(1).numpy()
        return crossed

    def state(self) -> list[Any]:
        return [[*window, *self._held[window]] for window in self._windows if window in self._held]

    def load(self, state: list[Any]) -> None:
        """Takes over the sums of the windows that are still open."""
        self._held = {
            (kind, first, stop): (total.cpu(), count.cpu())
            for kind, first, stop, total, count in state
            if (kind, first, stop) in self._windows
        }


class Collected:
    """Probabilities that training itself said in an epoch. N: images, C: classes."""

    def __init__(self, images: int, classes: int, device: torch.device) -> None:
        self._total = torch.zeros(images, classes, device=device)
        self._count = torch.zeros(images, device=device)

    def add(self, ids: Tensor, logits: Tensor) -> None:
        """Adds the rows of a step: ids int64 [b], logits [b, C]."""
        said = torch.softmax(logits, 1).to(self._total.dtype)
        self._total.index_add_(0, ids, said)
        self._count.index_add_(0, ids, torch.ones_like(said[:, 0]))

    def means(self, ids: Ids, ranks: Ranks) -> tuple[Ids, Probabilities]:
        """Returns those of these images that some rank saw, and the mean of each, [n, C]."""
        total, count = (ranks.sum(sums).cpu().numpy()[ids] for sums in (self._total, self._count))
        return ids[count > 0], total[count > 0] / count[count > 0, None]
