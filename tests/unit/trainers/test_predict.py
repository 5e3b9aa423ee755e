"""What is said of images by their logits alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.stage_world import CLASSES
from trainers import predict


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e12, 1e300])
def test_no_refused_class_is_guessed_however_far_apart_the_logits_are(scale: float) -> None:
    random = np.random.default_rng(0)
    logits = torch.from_numpy(scale * random.normal(size=(50, CLASSES)))
    rows = np.repeat(np.arange(50), CLASSES - 1)
    allowed = random.integers(0, CLASSES, 50)
    classes = np.concatenate([np.delete(np.arange(CLASSES), k) for k in allowed])
    said: Any = predict.arrays(["guess", "raw_guess"], logits, refused=(rows, classes))
    assert np.array_equal(said["guess"], allowed)
    assert np.array_equal(said["raw_guess"], logits.argmax(1))
