"""A stage of any size to measure: random images, a share of them labelled, a share with a refused
class. There is nothing to learn in it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from trainers.data.items import StageData, open_data
from trainers.stage import Ids, StageInputs

LABELLED, REFUSED = 0.1, 0.2
"""Shares of the pool."""

SHIFT = 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

TEST_ITEMS = 16


def random_cache(folder: Path, *, items: int, size: int, classes: int) -> StageData:
    """A prepared data cache of random uint8 colour images, written and opened. Views are shifted by
    up to 4 pixels and mirrored, as for CIFAR.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split, count in (("train", items), ("test", TEST_ITEMS)):
        np.save(
            folder / f"{split}.npy", rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        )
    meta = {
        "name": "random",
        "kind": "images",
        "num_classes": classes,
        "train_items": items,
        "test_items": TEST_ITEMS,
        "shape": [size, size, 3],
        "mean": MEAN,
        "std": STD,
        "augment": {"shift": SHIFT, "flip": True},
        "fingerprint": f"random-{items}-{size}-{classes}",
        "class_names": [],
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return open_data(folder)


def labelled_rows(batch: int) -> int:
    """Labelled images in a batch: their share of the pool and 5% more, the default of Mean
    Teacher.
    """
    return min(max(round(batch * (LABELLED + 0.05)), 1), batch - 1)


def random_inputs(*, items: int, classes: int, batch: int, steps: int) -> StageInputs:
    """Inputs whose epoch has exactly `steps` steps: that many batches' worth of images without a
    label, and a tenth of the pool labelled.

    The pool is drawn from all items at random, so that reading it jumps about in memory as it does
    in earnest. No validation images.
    """
    rng = np.random.default_rng(1)
    unlabelled = steps * (batch - labelled_rows(batch))
    labelled = max(round(unlabelled * LABELLED / (1 - LABELLED)), 1)
    size = unlabelled + labelled
    if size > items:
        raise SystemExit(
            f"{steps} steps of {batch} images need a pool of {size} images; raise --items from"
            f" {items}"
        )
    pool: Ids = np.sort(rng.choice(items, size, replace=False))
    label_ids: Ids = np.sort(rng.choice(pool, labelled, replace=False))
    negative_ids: Ids = np.sort(
        rng.choice(np.setdiff1d(pool, label_ids), round(size * REFUSED), replace=False)
    )
    nothing = np.empty(0, np.int64)
    return StageInputs(
        pool_ids=pool,
        label_ids=label_ids,
        labels=rng.integers(0, classes, labelled, dtype=np.int32),
        negative_ids=negative_ids,
        negative_classes=rng.integers(0, classes, len(negative_ids), dtype=np.int32),
        validation_ids=nothing,
        validation_labels=nothing.astype(np.int32),
    )
