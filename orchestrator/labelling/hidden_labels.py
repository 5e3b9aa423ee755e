"""The true classes of the training images. Only the oracle may import this module (import-linter
holds it so).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainers.errors import DataError


def train_labels(labels_dir: Path) -> npt.NDArray[np.int32]:
    """Returns the class of every training image, [N]; or, where an image may have several, [N, C]
    with 1 for those that it has.

    Raises:
        DataError: there is no such file, or it holds no list of whole numbers.
    """
    path = labels_dir / "train.npy"
    try:
        labels = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(
            f"{path}: no training labels here; run `orchestrate data prepare`"
        ) from None
    except Exception as error:  # a damaged header can fail anywhere in numpy's parser
        raise DataError(
            f"{path}: cannot be read as an array ({error}); delete it and run `orchestrate data"
            " prepare`"
        ) from error
    if (
        not isinstance(labels, np.ndarray)
        or labels.ndim not in (1, 2)
        or labels.dtype.kind not in "iu"
    ):
        raise DataError(
            f"{path}: expected one whole number an image; delete it and run `orchestrate data"
            " prepare`"
        )
    return labels.astype(np.int32)
