"""Prior scores: what a model that was never trained on this data says of every class, such as a
zero-shot classifier by text prompts. Beside `train.npy` and `test.npy` a source may write
`train_scores.npy` and `test_scores.npy`, float32 [n, C]: a softmax makes probabilities of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from orchestrator.data.arrays import SPLITS
from orchestrator.data.cache import PRIOR_FILES, chunks
from orchestrator.data.feature_files import FeatureFile
from orchestrator.data.feature_rows import finite
from orchestrator.data.npz_files import row_blocks
from orchestrator.data.protocols import Loaded
from search_spaces.reading.config import Contents
from trainers.errors import DataError

_SUMS_TO_ONE: Final = 0.01
"""How far the sum of a row of probabilities may be from 1: float16 rounds each."""


def are_probabilities(path: Path, file: FeatureFile) -> bool:
    """Returns whether the scores in a features file are probabilities: no number is negative and
    every row sums to 1, within a hundredth. Otherwise they are logits.

    Raises:
        DataError: one of scores and scores_test are probabilities and the other are not, or a
            number is not finite.
    """
    names = ["scores", *(["scores_test"] if file.scores_test else [])]
    found = {name: _sums_to_one(path, name) for name in names}
    if len(set(found.values())) > 1:
        of = {True: "probabilities", False: "no probabilities"}
        raise DataError(
            f"{path}: scores are {of[found['scores']]} (from 0, each row summing to 1), and"
            f" scores_test are {of[found['scores_test']]}. Both must be of one kind."
        )
    return found["scores"]


def _sums_to_one(path: Path, name: str) -> bool:
    found = True
    # To the end, whatever was seen: a number that is not finite is named before anything is kept.
    for first, rows in row_blocks(path, name):
        block = finite(path, name, first, rows)
        off = np.abs(block.sum(axis=1, dtype=np.float64) - 1)
        found = found and bool(block.min() >= 0 and off.max() <= _SUMS_TO_ONE)
    return found


def written(folder: Path) -> bool:
    """Returns whether prior scores lie in a folder of arrays, of one split at least."""
    return any((folder / name).exists() for name in PRIOR_FILES.values())


def check(where: str, folder: Path, loaded: Loaded, known: Contents, source: str) -> None:
    """Checks the prior scores that a source has written, if it said that it has some.

    Raises:
        DataError: they are not float32 [n, C] and finite, or it said otherwise.
    """
    fault = f"The data source {source} is at fault."
    if known.prior != written(folder):
        said, found = ("has", "wrote none") if known.prior else ("has no", "wrote some")
        raise DataError(f"{where}: {source} says that it {said} prior scores and {found}. {fault}")
    for split in SPLITS if known.prior else ():
        array = np.load(folder / PRIOR_FILES[split], mmap_mode="r", allow_pickle=False)
        form = (len(loaded.labels[split]), len(loaded.class_names))
        if array.dtype != np.float32 or array.shape != form:
            raise DataError(
                f"{where}: {PRIOR_FILES[split]} is {array.dtype} {list(array.shape)}; prior scores"
                f" are float32 {list(form)}. {fault}"
            )
        if not all(np.isfinite(part).all() for part in chunks(array)):
            raise DataError(f"{where}: {PRIOR_FILES[split]} holds a number that is none. {fault}")
