"""The true classes of the test images. Only orchestrator.labelling.evaluator may import this
module.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainers.errors import DataError
from trainers.stage import Classes


def read(labels_dir: Path) -> Classes:
    """Returns the class of each test image, [T], in the order of the images; or, where an image may
    have several, [T, C] with 1 for those that it has.

    Raises:
        DataError: if the file is missing or is not what was written there.
    """
    path = labels_dir / "test.npy"
    try:
        labels = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header can fail anywhere in numpy's parser
        raise DataError(
            f"{path}: the test labels cannot be read ({error}). Prepare the data set again:"
            " orchestrate data prepare NAME"
        ) from None
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int32 or labels.ndim > 2:
        raise DataError(
            f"{path}: expected int32 [T], found {labels.dtype} {list(labels.shape)}. Delete"
            f" {labels_dir} and prepare the data set again."
        )
    classes: Classes = labels
    return classes
