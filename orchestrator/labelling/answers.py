"""What may come back for the question "is this image of that class?"."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Answers = npt.NDArray[np.int8]

YES: Final = 1
NO: Final = 0
SKIPPED: Final = -1
"""Whoever was asked could not say; not charged."""
PENDING: Final = -2
"""Not answered yet; ask again later. Never recorded."""
