"""What is known of the images of a trial: which of them are of which classes, and which are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
"""(image, class) as one number: id times the number of classes, plus the class."""


def class_type(num_classes: int) -> npt.DTypeLike:
    """Returns the narrowest of int16 and int32 that holds every class."""
    return np.int16 if num_classes <= np.iinfo(np.int16).max else np.int32


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of an image and a class, ascending by (id, class), none twice. Their size follows what
    is known, not images times classes.
    """

    ids: npt.NDArray[np.int32]
    """[m]"""
    classes: npt.NDArray[Any]
    """[m] int16 or int32."""

    @classmethod
    def from_keys(cls, keys: Keys, num_classes: int) -> Pairs:
        """Returns the pairs of these ascending keys."""
        classes = (keys % num_classes).astype(class_type(num_classes))
        return cls((keys // num_classes).astype(np.int32), classes)

    def __len__(self) -> int:
        return len(self.ids)

    def keys(self, num_classes: int) -> Keys:
        """Returns [m] ascending keys."""
        keys: Keys = self.ids.astype(np.int64) * num_classes + self.classes
        return keys


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Facts:
    """All that answers have told of the images of a trial."""

    images: int
    num_classes: int
    positives: Pairs
    """Image id is of the class."""
    negatives: Pairs
    """Image id is not of the class."""

    @classmethod
    def none(cls, images: int, num_classes: int) -> Facts:
        """Returns what is known before anything is bought."""
        empty = Pairs.from_keys(np.empty(0, np.int64), num_classes)
        return cls(images=images, num_classes=num_classes, positives=empty, negatives=empty)

    def with_keys(self, positives: Keys, negatives: Keys) -> Facts:
        """Returns these facts in place of those, of the same images; keys ascend."""
        return Facts(
            images=self.images,
            num_classes=self.num_classes,
            positives=Pairs.from_keys(positives, self.num_classes),
            negatives=Pairs.from_keys(negatives, self.num_classes),
        )

    def has_positive(self) -> npt.NDArray[np.bool_]:
        """Returns [images] whether some class of the image is known."""
        found = np.zeros(self.images, np.bool_)
        found[self.positives.ids] = True
        return found


def positions(
    ascending: npt.NDArray[Any], wanted: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Returns the index of each wanted value in `ascending`, and a mask of those present. Where
    one is absent, the index means nothing.
    """
    if not ascending.size:
        return np.zeros(wanted.size, np.intp), np.zeros(wanted.size, np.bool_)
    at = np.minimum(np.searchsorted(ascending, wanted), ascending.size - 1)
    return at, ascending[at] == wanted
