"""Training is what the method's definition says, computed a second time with nothing but plain
operations (I32, I33, I36).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.stage_world import QUICK, mean_teacher, some_inputs, write_cache
from trainers.data.items import open_data
from trainers.mean_teacher.method import MeanTeacher
from trainers.mean_teacher.settings import MeanTeacherConfig

CONFIG = dataclasses.replace(
    QUICK,
    precision="fp64",
    consistency_weight=30.0,
    consistency_rampup_epochs=3,
    epochs=4,
    weight_decay=0.01,
)
EPOCHS = 3
"""Past the end of the consistency's ramp and of the averaging's warm-up, which with a decay of 0.7
ends after 3 steps.
"""


def new(config: MeanTeacherConfig, folder: Path, truth: Any) -> MeanTeacher:
    return mean_teacher(config, open_data(folder), some_inputs(truth), seed=5)


def reference(trainer: MeanTeacher) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """States of student and teacher after EPOCHS epochs of `trainer`'s own batches, by Tarvainen &
    Valpola 2017 and Hu et al. 2020 written out.
    """
    config, student, teacher = (
        trainer.config,
        copy.deepcopy(trainer.student),
        copy.deepcopy(trainer.teacher),
    )
    velocity: dict[str, Tensor] = {}
    count = 0
    for epoch in range(EPOCHS):
        batches = trainer.sampler.epoch(epoch)
        ramp = math.exp(
            -5
            * (1 - min(epoch, config.consistency_rampup_epochs) / config.consistency_rampup_epochs)
            ** 2
        )
        for step, batch in enumerate(trainer.batches(epoch, batches)):
            rate = (
                config.learning_rate
                * (
                    1
                    + math.cos(
                        math.pi
                        * (epoch + step / batches.steps)
                        / (config.cosine_horizon * config.epochs)
                    )
                )
                / 2
            )
            student.train()
            teacher.train()
            with torch.no_grad():
                logits = teacher(batch.teacher_view)[0]
                for row, refused in zip(
                    batch.negative_rows.tolist(), batch.negative_classes.tolist(), strict=True
                ):
                    if config.nls:
                        logits[row, refused] = -math.inf
                target = logits.softmax(1)
            one, two = student(batch.student_view)
            size, classes = one.shape
            labelled = one[size - len(batch.labels) :].softmax(1)
            loss = (
                -sum(labelled[i, label].log() for i, label in enumerate(batch.labels.tolist()))
                / size
            )
            loss = loss + config.consistency_weight * ramp * (
                (two.softmax(1) - target) ** 2
            ).sum() / (size * classes)
            loss = loss + config.logit_distance_weight * ((one - two) ** 2).sum() / (size * classes)
            names, weights = zip(*student.named_parameters(), strict=True)
            gradients = torch.autograd.grad(loss, weights)
            count += 1
            keep = min(1 - 1 / (count + 1), config.ema_decay)
            averaged = dict(teacher.named_parameters())
            with torch.no_grad():
                for name, weight, gradient in zip(names, weights, gradients, strict=True):
                    decayed = gradient + config.weight_decay * weight
                    velocity[name] = (
                        decayed if count == 1 else config.momentum * velocity[name] + decayed
                    )
                    weight -= rate * (decayed + config.momentum * velocity[name])
                    averaged[name].copy_(keep * averaged[name] + (1 - keep) * weight)
    return student.state_dict(), teacher.state_dict()


@pytest.mark.parametrize("nls", [True, False])
def test_epochs_of_training_are_those_of_the_definition(tmp_path: Path, nls: bool) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    config = dataclasses.replace(CONFIG, nls=nls)
    expected = reference(new(config, folder, truth))
    trained = new(config, folder, truth)
    for epoch in range(EPOCHS):
        trained.train_epoch(epoch)
    for found, wanted in zip(
        (trained.student.state_dict(), trained.teacher.state_dict()), expected, strict=True
    ):
        for name in wanted:
            torch.testing.assert_close(
                found[name],
                wanted[name],
                rtol=1e-9,
                atol=1e-11,
                msg=lambda text, name=name: f"{name}: {text}",
            )
