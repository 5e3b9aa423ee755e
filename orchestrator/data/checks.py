"""What is looked at in decoded data before it is kept: items that are all equal, copies, a test set
without a class, published sizes.
"""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.data.arrays import SPLITS, Array
from orchestrator.data.cache import PRIOR_FILES
from orchestrator.data.protocols import Loaded, Source
from search_spaces.reading.config import Contents, DatasetFacts
from trainers.errors import DataError

_SAMPLE: Final = 64
"""Bytes of an item that are compared first; only items alike in these are read whole."""

_NAMED: Final = 5

_UNEVEN: Final = 3
"""Times as many items of the most frequent class as of the rarest, from which on it is said."""

Digests = npt.NDArray[np.object_]


def check_content(where: str, folder: Path, loaded: Loaded) -> tuple[str, ...]:
    """Returns a line for each thing that the user should know of the arrays `train.npy` and
    `test.npy` in `folder`.

    Raises:
        DataError: all training items are equal.
    """
    train, test = (
        np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False) for split in SPLITS
    )
    samples = [_samples(array) for array in (train, test)]
    _, group, sizes = np.unique(np.concatenate(samples), return_inverse=True, return_counts=True)
    alike = sizes[group.reshape(-1)] > 1
    train_digests, test_digests = (
        _digests(train, alike[: len(train)]),
        _digests(test, alike[len(train) :]),
    )
    if (
        len(train) > 1
        and len(set(train_digests.values())) == 1
        and len(train_digests) == len(train)
    ):
        raise DataError(
            f"{where}: all {len(train):,} training items are equal once they are read, so that"
            " there is nothing to learn. Look at some of the files: an empty export, or a shape"
            " that is kept in what was taken for transparency?"
        )
    notes = [
        *_copies(train_digests, loaded.labels["train"], len(train)),
        *_leak(train_digests, test_digests, len(test)),
    ]
    absent = np.flatnonzero(
        items_of_each_class(loaded.labels["test"], len(loaded.class_names)) == 0
    )
    if len(absent):
        some = ", ".join(loaded.class_names[c] for c in absent[:_NAMED]) + (
            ", ..." if len(absent) > _NAMED else ""
        )
        classes = len(loaded.class_names)
        notes.append(
            f"the test set has no item of {len(absent)} of {classes} classes ({some}): test"
            " accuracy says nothing of them"
            if loaded.labels["test"].ndim == 1
            else f"the test set has no item of {len(absent)} of {classes} categories ({some}): each"
            f" counts 0 in the mAP, which can therefore be {100 * (1 - len(absent) / classes):.1f}"
            " at most"
        )
    return (*notes, *_uneven(loaded))


_FORMS: Final = {
    "images": (np.uint8, 4, "uint8 [N, H, W, C]"),
    "features": (np.float32, 2, "float32 [N, D]"),
}
"""Kind of data -> dtype and number of axes of its arrays, and both in words."""


def check_arrays(where: str, source: Source, folder: Path, loaded: Loaded) -> None:
    """Checks that a source has written the two arrays that it should, and nothing beside them but
    prior scores: what lies there is shown to trainers.

    Raises:
        DataError: names the array and what it holds.
    """
    fault = f"The data source {source.name} is at fault."
    there = {path.name for path in folder.iterdir()}
    if there.issuperset(PRIOR_FILES.values()):
        there.difference_update(PRIOR_FILES.values())
    beside = sorted(there ^ {f"{s}.npy" for s in SPLITS})
    if beside:
        raise DataError(
            f"{where}: train.npy and test.npy were to be written, and it differs in"
            f" {', '.join(beside[:_NAMED])}. {fault}"
        )
    dtype, axes, form = _FORMS[loaded.kind]
    shapes = set()
    for split in SPLITS:
        array = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        labels = loaded.labels[split]
        shapes.add(array.shape[1:])
        if array.dtype != dtype or array.ndim != axes or len(shapes) > 1:
            raise DataError(
                f"{where}: {split}.npy is {array.dtype} {list(array.shape)}; {loaded.kind} are"
                f" {form}, with one form of items. {fault}"
            )
        classes = len(loaded.class_names)
        if labels.dtype != np.int32 or labels.shape not in ((len(array),), (len(array), classes)):
            raise DataError(
                f"{where}: the {split} labels are {labels.dtype} {list(labels.shape)} for"
                f" {len(array)} items of {classes} classes; they are int32, one an item, or 0 or 1"
                f" for each item and class. {fault}"
            )
        if labels.min() < 0 or labels.max() >= (classes if labels.ndim == 1 else 2):
            raise DataError(
                f"{where}: the {split} labels are from {labels.min()} to {labels.max()}, and there"
                f" are {classes} classes. {fault}"
            )


def check_sizes(where: str, source: Source, facts: DatasetFacts) -> None:
    """Checks that a published set has the sizes that `plan` reckons with.

    Raises:
        DataError: names both numbers.
    """
    published: Contents | None = getattr(source, "holds", None)
    if published is not None:
        _compare(where, source, facts, published)


def check_loaded(where: str, source: Source, known: Contents, loaded: Loaded) -> None:
    """Checks that what was read is what the source said before, which `plan` reckons with.

    Raises:
        DataError: names both numbers.
    """
    train_items, test_items = (len(loaded.labels[split]) for split in SPLITS)
    facts = DatasetFacts(
        name=source.name,
        num_classes=len(loaded.class_names),
        train_items=train_items,
        test_items=test_items,
        kind=loaded.kind,
    )
    _compare(where, source, facts, known)
    if known.class_names not in ((), loaded.class_names):
        here, there = next(
            pair
            for pair in zip_longest(loaded.class_names, known.class_names, fillvalue="missing")
            if pair[0] != pair[1]
        )
        raise DataError(
            f"{where}: a class is {here} here, but {source.name} has {there}. {_mend(source)}"
        )
    counts = items_of_each_class(loaded.labels["train"], len(loaded.class_names))
    if loaded.labels["train"].ndim > 1:
        # There `smallest_class` says how many images each class may count on, not how many have it.
        return
    if counts.min() < known.smallest_class:
        few = int(counts.argmin())
        raise DataError(
            f"{where}: class {few} ({loaded.class_names[few]}) has {counts[few]} training items,"
            f" but no class of {source.name} has fewer than {known.smallest_class}."
            f" {_mend(source)}"
        )


def _compare(where: str, source: Source, found: DatasetFacts, known: Contents) -> None:
    for key, what in (
        ("kind", "kind"),
        ("num_classes", "classes"),
        ("train_items", "training items"),
        ("test_items", "test items"),
    ):
        here, there = getattr(found, key), getattr(known, key)
        if here != there:
            raise DataError(
                f"{where}: {what}: {here} here, but {source.name} has {there}. {_mend(source)}"
            )


def _mend(source: Source) -> str:
    return (
        "Give the whole set, or name it `folder` or `features`."
        if hasattr(source, "holds")
        else f"The data source {source.name} counts what it does not read; it is at fault."
    )


def _samples(array: Array) -> npt.NDArray[Any]:
    """[N] some bytes of each item, spread over it, as one value."""
    flat = array.reshape(len(array), -1).view(np.uint8)
    step = max(1, flat.shape[1] // _SAMPLE) | 1  # odd: the low byte of every number may be zero
    chosen = np.ascontiguousarray(flat[:, ::step])
    return chosen.view(np.dtype((np.void, chosen.shape[1]))).reshape(-1)


def _digests(array: Array, chosen: npt.NDArray[np.bool_]) -> dict[int, bytes]:
    """Number of an item -> a digest of all of it, for those chosen."""
    return {
        int(row): hashlib.blake2b(np.ascontiguousarray(array[row]).data, digest_size=16).digest()
        for row in np.flatnonzero(chosen)
    }


def _uneven(loaded: Loaded) -> list[str]:
    """Says where classes are so unequally frequent that a balanced validation set tells of another
    mixture than the test set.
    """
    labels, names = loaded.labels["train"], loaded.class_names
    if labels.ndim > 1:
        return []
    counts = items_of_each_class(labels, len(names))
    few, many = int(counts.argmin()), int(counts.argmax())
    if counts[many] < _UNEVEN * counts[few]:
        return []
    return [
        f"class {names[many]} has {counts[many]:,} training items and class {names[few]}"
        f" {counts[few]:,}: validation: {{from: split}} and initial_choice: random take as many of"
        " each class, so that validation accuracy is of another mixture than test accuracy, and"
        " labels are where blind draws would not find them (initial_choice: uniform)"
    ]


def items_of_each_class(labels: npt.NDArray[np.int32], classes: int) -> npt.NDArray[np.int64]:
    """Returns [C] how many items have each class; labels are [n] or [n, C]."""
    if labels.ndim == 1:
        return np.bincount(labels, minlength=classes)
    return np.asarray(labels.sum(axis=0, dtype=np.int64))


def _copies(digests: dict[int, bytes], labels: npt.NDArray[np.int32], count: int) -> list[str]:
    classes: dict[bytes, set[bytes]] = {}
    for row, digest in digests.items():
        classes.setdefault(digest, set()).add(labels[row].tobytes())
    copies = len(digests) - len(classes)
    if not copies:
        return []
    torn = sum(len(names) > 1 for names in classes.values())
    also = f"; {torn} items are there under more than one class" if torn else ""
    return [f"{copies} of {count} training items are copies of other training items{also}"]


def _leak(train: dict[int, bytes], test: dict[int, bytes], count: int) -> list[str]:
    known = set(train.values())
    leaked = sum(digest in known for digest in test.values())
    return (
        [
            f"{leaked} of {count} test items are training items too: test accuracy may say too much"
            " of new ones"
        ]
        if leaked
        else []
    )
