"""What contrastive features are held against: the queue of the latest keys, and the latest key of
each labelled image. d: length of a feature, K: of the queue, L: labelled images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainers import randomness
from trainers.data.items import to_device
from trainers.stage import Classes, Ids


class Queue:
    """First in, first out; the same on every rank. It starts as random unit vectors."""

    def __init__(
        self, size: int, dim: int, *, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        rows = torch.arange(size)
        numbers = randomness.normals(randomness.draws(seed, rows, rows * 0, dim)).to(dtype)
        self.keys = functional.normalize(numbers, dim=1).to(device)
        """[K, d]"""
        self.ids = torch.full((size,), -1, dtype=torch.int64, device=device)
        """int64 [K] image of each; -1: of none."""
        self.at = 0
        """Where the oldest is."""

    def push(self, keys: Tensor, ids: Tensor) -> None:
        """Puts a batch in the place of the oldest.

        Args:
            keys: [B, d], B a divisor of K. ids: int64 [B].
        """
        part = slice(self.at, self.at + len(keys))
        self.keys[part], self.ids[part] = keys, ids
        self.at = part.stop % len(self.keys)

    def state(self) -> dict[str, Any]:
        return {"keys": self.keys, "ids": self.ids, "at": self.at}

    def load(self, state: dict[str, Any]) -> None:
        self.keys, self.ids, self.at = state["keys"], state["ids"], int(state["at"])


class LabelledFeatures:
    """The latest key of each labelled image, by class."""

    def __init__(
        self,
        ids: Ids,
        labels: Classes,
        *,
        num_classes: int,
        items: int,
        dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.ids, self._device = ids, device
        self.features = torch.zeros(len(ids) + 1, dim, device=device, dtype=dtype)
        """[L + 1, d]; the last row is nobody's."""
        self.known = np.zeros(len(ids), np.bool_)
        """[L] which rows hold a key."""
        self.row_of = np.full(items, len(ids), np.int64)
        """Image -> row; L: it has no label."""
        self.row_of[ids] = np.arange(len(ids))
        self._by_class = np.argsort(labels, kind="stable")
        self._held = np.bincount(labels, minlength=num_classes).astype(np.int64)
        self._start = np.cumsum(self._held) - self._held
        self._place = np.empty(len(ids), np.int64)
        self._place[self._by_class] = np.arange(len(ids)) - np.repeat(self._start, self._held)
        self._labels = labels.astype(np.int64)
        most = int(self._held.max(initial=0))
        members = np.full((num_classes, max(most, 1)), len(ids), np.int64)
        members[self._labels, self._place] = np.arange(len(ids))
        # The last entry is that of no image.
        label_of = np.full(items + 1, -1, np.int64)
        label_of[ids] = labels
        self._members, self._counts, self._label_of = (
            to_device(a, device) for a in (members, self._held, label_of)
        )

    def labels_of(self, ids: Tensor) -> Tensor:
        """Returns the class of each image, int64; -1 without a label, and for the id -1."""
        return self._label_of[ids]

    def others(self, ids: Ids, visits: Ids, stream: int) -> Ids:
        """Returns for each labelled image the row of a random other one of its class; L where it
        is the only one. int64, of the shape of `ids`.
        """
        rows = self.row_of[ids.reshape(-1)]
        labels = self._labels[rows]
        bits = randomness.draws(
            stream, torch.from_numpy(ids.reshape(-1)), torch.from_numpy(visits.reshape(-1)), 1
        )
        left = self._held[labels] - 1
        drawn = randomness.integers(bits[:, 0], torch.from_numpy(np.maximum(left, 1))).numpy()
        drawn = drawn + (drawn >= self._place[rows])
        at = np.minimum(self._start[labels] + drawn, len(self.ids) - 1)
        found: Ids = np.where(left > 0, self._by_class[at], len(self.ids)).reshape(ids.shape)
        return found

    def of_classes(
        self, classes: Tensor, bits: Tensor, *, count: int, with_replacement: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns rows of random labelled images of each class, int64 [n, k], and which of them
        count, bool [n, k]: `count`, or all where the class has fewer and none may come twice.

        Args:
            classes: int64 [n]. bits: int64 [n, `bits_of_classes`] random.
        """
        held = self._counts[classes][:, None]
        if with_replacement:
            drawn = randomness.integers(bits, held.clamp(min=1))
            valid = (held > 0).expand_as(drawn)
        else:
            places = torch.arange(bits.shape[1], device=bits.device)
            keyed = torch.where(places < held, bits >> 1, torch.iinfo(torch.int64).max)
            drawn = keyed.topk(min(count, bits.shape[1]), largest=False).indices
            valid = torch.arange(drawn.shape[1], device=bits.device) < held
        return self._members[classes].gather(1, drawn), valid

    def bits_of_classes(self, count: int, with_replacement: bool) -> int:
        """Random numbers that `of_classes` needs for a row."""
        return count if with_replacement else int(self._members.shape[1])

    def put(self, rows: Tensor, keys: Tensor) -> None:
        """Keeps the keys [n, d] in these rows, int64 [n], none but the last of them twice."""
        self.features.index_copy_(0, rows, keys)

    def state(self) -> dict[str, Any]:
        known = to_device(np.flatnonzero(self.known), self._device)
        ids = torch.from_numpy(self.ids[self.known])
        return {"ids": ids, "features": self.features[known]}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over the keys of images that have a label."""
        ids = state["ids"].cpu().numpy()
        rows = self.row_of[ids]
        held = np.flatnonzero(rows < len(self.ids))
        self.known[rows[held]] = True
        self.put(
            to_device(rows[held], self._device),
            state["features"][to_device(held, self._device)],
        )


def last_of_each(rows: Ids, nobody: int) -> Ids:
    """Returns rows [steps, n] with each but the last of equals in a step replaced by `nobody`: a
    row is then written once.
    """
    found = rows.copy()
    for step in found:
        order = np.argsort(step, kind="stable")
        step[order[:-1][step[order[:-1]] == step[order[1:]]]] = nobody
    return found
