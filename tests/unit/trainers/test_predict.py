"""What is said of images by their logits alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.stage_world import CLASSES, CPU, TEST, write_cache
from trainers import predict
from trainers.data.items import Items, open_data
from trainers.distributed.ranks import ALONE
from trainers.networks import backbones


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


def test_of_several_classes_an_image_each_has_a_probability_of_its_own(tmp_path: Path) -> None:
    data = open_data(write_cache(tmp_path / "cache", kind="features")[0])
    net = backbones.build("linear", data, single_head=True, seed=1).double().eval()
    items = Items(data, "test", device=CPU, dtype=torch.float64, feature_noise=0.0)
    ids = np.arange(0, TEST, 2)
    said: Any = predict.judge(net, items, ids, ["probabilities", "embedding"], ALONE, several=True)
    features = items.plain(torch.from_numpy(np.array(data.test[ids])))
    logits = net.class_head(features)
    expected = 1 / (1 + np.exp(-logits.detach().numpy()))
    np.testing.assert_allclose(said["probabilities"], expected, rtol=1e-6)
    np.testing.assert_allclose(said["embedding"], features, rtol=1e-6)
    one: Any = predict.judge(net, items, ids, ["probabilities"], ALONE)
    np.testing.assert_allclose(one["probabilities"].sum(1), 1, rtol=1e-6)
