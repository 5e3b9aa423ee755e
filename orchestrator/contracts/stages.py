"""A small data cache and the inputs of a stage, for the laws of training methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.artefacts import StageFile, StageFiles, sha256_of
from trainers.stage import Classes, Ids, StageInputs, StageOutcome, StageRequest

CLASSES = 4
TRAIN, TEST = 120, 30
VALIDATION_IDS = np.arange(0, TRAIN, 6, dtype=np.int64)


def write_cache(
    folder: Path, *, kind: str = "images", seed: int = 0, prior: bool = False
) -> tuple[Path, Classes]:
    """A prepared data cache of noisy patterns, one a class, and the true classes of its training
    items, which the cache does not hold.

    Args:
        prior: with prior scores, whose guesses are right more often than not.
    """
    rng = np.random.default_rng(seed)
    shape = (8, 8, 1) if kind == "images" else (12,)
    patterns = rng.uniform(60, 200, (CLASSES, *shape))
    labels = {
        "train": rng.permutation(np.arange(TRAIN) % CLASSES).astype(np.int32),
        "test": (np.arange(TEST) % CLASSES).astype(np.int32),
    }
    folder.mkdir(parents=True)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split, truth in labels.items():
        values = patterns[truth] + rng.normal(0, 35, (len(truth), *shape))
        arrays[split] = (
            values.clip(0, 255).astype(np.uint8)
            if kind == "images"
            else (values / 255).astype(np.float32)
        )
        np.save(folder / f"{split}.npy", arrays[split])
    scaled = arrays["train"].reshape(-1, shape[-1]) / (255 if kind == "images" else 1)
    meta = {
        "name": "patterns",
        "kind": kind,
        "num_classes": CLASSES,
        "train_items": TRAIN,
        "test_items": TEST,
        "shape": list(shape),
        "mean": scaled.mean(0).tolist(),
        "std": scaled.std(0).tolist(),
        "augment": {"shift": 1},
        "fingerprint": "patterns",
        "class_names": [],
    }
    if prior:
        for split, truth in labels.items():
            scores = 2 * np.eye(CLASSES)[truth] + rng.normal(0, 1, (len(truth), CLASSES))
            np.save(folder / f"{split}_scores.npy", scores.astype(np.float32))
        meta["files"] = dict.fromkeys(f"{split}_scores.npy" for split in labels)
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder, labels["train"]


def some_inputs(truth: Classes, *, labelled: int = 16, refused: int = 40) -> StageInputs:
    """The first images of the pool labelled, the next ones with one class each refused, the
    validation images apart.
    """
    pool: Ids = np.setdiff1d(np.arange(len(truth), dtype=np.int64), VALIDATION_IDS)
    label_ids, negative_ids = pool[:labelled], pool[labelled : labelled + refused]
    return StageInputs(
        pool_ids=pool,
        label_ids=label_ids,
        labels=truth[label_ids],
        negative_ids=negative_ids,
        negative_classes=(
            (truth[negative_ids] + 1 + negative_ids % (CLASSES - 1)) % CLASSES
        ).astype(np.int32),
        validation_ids=VALIDATION_IDS,
        validation_labels=truth[VALIDATION_IDS],
    )


def committed(request: StageRequest, outcome: StageOutcome) -> StageFiles:
    """The files of a stage, as a later one reads them."""
    paths = {role: request.work_dir / name for role, name in outcome.files.items()}
    return StageFiles({role: StageFile(path, sha256_of(path)) for role, path in paths.items()})
