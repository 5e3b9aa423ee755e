"""Class means guess what scikit-learn's nearest centroid guesses, and no class that has no mean."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.stage_world import some_inputs, write_cache
from trainers.data.items import open_data
from trainers.distributed.ranks import ALONE
from trainers.prototypes.settings import Prototypes
from trainers.prototypes.trainer import PrototypesTrainer
from trainers.stage import StageInputs


def trained(data: Path, inputs: StageInputs) -> PrototypesTrainer:
    method = Prototypes()
    trainer = PrototypesTrainer(
        method.stage(0, 0, has_negatives=True),
        method,
        open_data(data),
        inputs,
        seed=0,
        device=torch.device("cpu"),
        ranks=ALONE,
        parent=None,
    )
    (loss,) = trainer.epoch(0).values()
    assert loss.shape == (1,) and 0 <= float(loss) <= 1
    return trainer


def test_it_guesses_the_class_whose_mean_is_nearest(tmp_path: Path) -> None:
    from sklearn.neighbors import NearestCentroid

    data, truth = write_cache(tmp_path / "cache", kind="features")
    inputs = some_inputs(truth, labelled=30)
    x, test = (np.load(data / f"{split}.npy").astype(np.float64) for split in ("train", "test"))
    theirs = NearestCentroid().fit(x[inputs.label_ids], inputs.labels)
    said: Any = trained(data, inputs).scores("test", np.arange(len(test)), ["raw_guess"])
    assert np.array_equal(said["raw_guess"], theirs.predict(test))


@pytest.mark.parametrize("labelled", [0, 1, 24])
def test_a_class_without_a_label_is_not_guessed_while_another_has_one(
    labelled: int, tmp_path: Path
) -> None:
    data, truth = write_cache(tmp_path / "cache", kind="features")
    inputs = some_inputs(truth, labelled=labelled)
    keep = inputs.labels != 2
    short = dataclasses.replace(
        inputs, label_ids=inputs.label_ids[keep], labels=inputs.labels[keep]
    )
    said: Any = trained(data, short).scores("pool", inputs.pool_ids, ["raw_guess", "probabilities"])
    guessed = set(said["raw_guess"].tolist())
    assert guessed <= set(short.labels.tolist()) if len(short.labels) else guessed == {0}
    assert np.isfinite(said["probabilities"]).all()
