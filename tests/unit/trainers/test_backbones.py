"""The published sizes of the backbones, that each trains, and the gates of Shake-Shake."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.stage_world import (
    QUICK,
    mean_teacher,
    score_bytes,
    scores,
    some_inputs,
    stage_request,
    write_cache,
)
from trainers.data.augment import Recipe
from trainers.data.items import StageData, open_data
from trainers.distributed.ranks import ALONE, Ranks
from trainers.networks import backbones as networks
from trainers.networks import resnet, shake_shake
from trainers.run import run_stage


def data_of(side: int, classes: int, channels: int = 3) -> StageData:
    empty = np.empty((0, side, side, channels), np.uint8)
    ones = (1.0,) * channels
    return StageData(
        folder=Path("none"),
        name="none",
        kind="images",
        num_classes=classes,
        train=empty,
        test=empty,
        mean=ones,
        std=ones,
        recipe=Recipe(),
        crop=None,
        fingerprint="",
        class_names=(),
    )


def weights(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "side", "classes", "trunk", "whole"),
    [
        # Whole: 26,266,616 is the published count for 100 classes with two heads.
        ("shake_shake_26", 32, 100, 26_189_616, 26_266_616),
        ("resnet50", 84, 100, 23_508_032, 23_508_032 + 2 * (2048 * 100 + 100)),
        ("resnet50", 224, 1000, 23_508_032, 23_508_032 + 2 * (2048 * 1000 + 1000)),
        # 1,467,610 with one head of ten classes.
        ("wide_resnet_28_2", 32, 10, 1_467_610 - 1290, 1_467_610 + 1290),
        # 138,365,992 with batch norm and one head of 1,000 classes.
        ("vgg16", 224, 1000, 138_365_992 - 4_097_000, 138_365_992 + 4_097_000),
        ("vgg16", 32, 100, 14_723_136, 14_723_136 + 2 * 51_300),
    ],
)
def test_a_backbone_has_its_published_number_of_weights(
    name: str, side: int, classes: int, trunk: int, whole: int
) -> None:
    with torch.device("meta"):
        net = networks.build(name, data_of(side, classes), single_head=False, seed=0)
    assert (weights(net.trunk), weights(net)) == (trunk, whole)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet50", 84),
        ("resnet50", 32),
        ("wide_resnet_28_2", 16),
        ("vgg16", 8),
        ("shake_shake_26", 9),
    ],
)
def test_a_backbone_gives_one_row_of_logits_an_image_and_a_gradient_to_every_weight(
    name: str, side: int
) -> None:
    net = networks.build(name, data_of(side, 5, channels=1), single_head=False, seed=1)
    keys = torch.arange(3) if net.keyed else None
    class_logits, consistency_logits = net(torch.randn(3, 1, side, side), keys)
    assert class_logits.shape == consistency_logits.shape == (3, 5)
    (class_logits.square().sum() + consistency_logits.square().sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.eval()(torch.zeros(2, 1, side, side))[0].shape == (2, 5)


def test_weights_are_a_function_of_the_seed_and_start_as_published() -> None:
    nets = [
        networks.build("resnet50", data_of(84, 20), single_head=False, seed=seed)
        for seed in (3, 3, 4)
    ]
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["trunk.conv1.weight"], states[2]["trunk.conv1.weight"])
    assert states[0]["trunk.conv1.weight"].std() == pytest.approx(
        math.sqrt(2 / (49 * 64)), rel=0.05
    )
    assert states[0]["class_head.weight"].std() == pytest.approx(
        math.sqrt(2 / (20 * 2048)), rel=0.05
    )
    assert not states[0]["class_head.bias"].any()
    assert not torch.equal(states[0]["class_head.weight"], states[0]["consistency_head.weight"])
    # The 7x7 stem of 84 pixels and the 3x3 one of small images.
    assert nets[0].trunk.conv1.stride == (2, 2)
    assert resnet.resnet50(3, 32)[0].conv1.stride == (1, 1)
    shaken = networks.build("shake_shake_26", data_of(8, 5), single_head=False, seed=0).state_dict()
    assert shaken["trunk.blocks.11.first.4.weight"].std() == pytest.approx(
        math.sqrt(2 / (9 * 384)), rel=0.02
    )


class TestShake:
    def test_forward_and_backward_have_draws_of_their_own(self) -> None:
        a, b = (torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
        forward_gate, backward_gate = (
            torch.rand(4, dtype=torch.float64),
            torch.rand(4, dtype=torch.float64),
        )
        mixed = shake_shake.mix(a, b, forward_gate, backward_gate)
        g = forward_gate.view(4, 1, 1, 1)
        assert torch.allclose(mixed, g * a + (1 - g) * b, atol=1e-12)
        gradient = torch.randn_like(mixed)
        mixed.backward(gradient)
        h = backward_gate.view(4, 1, 1, 1)
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(a.grad, h * gradient, atol=1e-12)
        assert torch.allclose(b.grad, (1 - h) * gradient, atol=1e-12)

    def test_without_gates_the_branches_count_the_same(self) -> None:
        a, b = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
        assert torch.equal(shake_shake.mix(a, b, None, None), (a + b) / 2)

    def test_a_gate_depends_on_its_images_key_alone(self) -> None:
        keys = torch.randint(-(2**62), 2**62, (50,), generator=torch.Generator().manual_seed(0))
        whole = shake_shake.gates(keys, 12)
        assert whole.shape == (2, 12, 50)
        part = torch.tensor([7, 3, 41])
        assert torch.equal(shake_shake.gates(keys[part], 12), whole[:, :, part])
        rows = whole.reshape(24, 50)
        assert len({tuple(row.tolist()) for row in rows}) == 24

    def test_gates_are_uniform_and_independent(self) -> None:
        drawn = shake_shake.gates(torch.arange(5000), 4).reshape(8, 5000).double()
        assert drawn.min() >= 0 and drawn.max() < 1
        assert torch.allclose(drawn.mean(1), torch.full((8,), 0.5, dtype=torch.float64), atol=0.02)
        assert torch.allclose(
            drawn.var(1), torch.full((8,), 1 / 12, dtype=torch.float64), atol=0.004
        )
        assert torch.allclose(torch.corrcoef(drawn), torch.eye(8, dtype=torch.float64), atol=0.06)

    def test_a_training_pass_is_a_function_of_its_keys_and_no_live_stream(self) -> None:
        net = shake_shake.ShakeShake(1).train()
        x, keys = torch.randn(2, 1, 8, 8), torch.tensor([5, 9])
        torch.manual_seed(0)
        first = net(x, keys)
        torch.manual_seed(1)
        assert torch.equal(net(x, keys), first)
        assert not torch.equal(net(x, keys + 1), first)
        with pytest.raises(ValueError, match="a key for each image"):
            net(x)

    def test_an_images_draws_are_the_same_on_any_rank_and_other_in_the_next_epoch(
        self, tmp_path: Path
    ) -> None:
        data_dir, truth = write_cache(tmp_path / "cache")
        config = dataclasses.replace(QUICK, backbone="shake_shake_26", epochs=1)
        trainer = mean_teacher(config, open_data(data_dir), some_inputs(truth))

        def key_of(ranks: Ranks, number: int) -> dict[tuple[int, int, str], int]:
            trainer.ranks = ranks
            epoch = trainer.sampler.epoch(number)
            mine = epoch.share(ranks.rank, ranks.world_size)
            found = {}
            for step, batch in enumerate(trainer.batches(number, epoch)):
                for who, keys in (("student", batch.student_keys), ("teacher", batch.teacher_keys)):
                    assert keys is not None
                    found |= {
                        (step, int(i), who): int(key)
                        for i, key in zip(mine.ids[step], keys, strict=True)
                    }
            return found

        alone = key_of(ALONE, 0)
        assert {**key_of(Ranks(0, 2), 0), **key_of(Ranks(1, 2), 0)} == alone
        assert len(set(alone.values())) == len(alone)
        assert not set(key_of(ALONE, 1).values()) & set(alone.values())

    def test_the_shifted_shortcut_sees_both_grids(self) -> None:
        shortcut = shake_shake._ShiftedShortcut(1, 2).eval()
        with torch.no_grad():
            shortcut.conv.weight.fill_(1.0)
            shortcut.conv.bias.zero_()
        x = torch.arange(16.0).reshape(1, 1, 4, 4)
        found = shortcut(x) * math.sqrt(1 + shortcut.norm.eps)
        assert torch.allclose(found[0, 0], x[0, 0, ::2, ::2])
        assert torch.allclose(found[0, 1], x[0, 0, 1::2, 1::2])

    def test_a_stage_trains_the_same_twice(self, tmp_path: Path) -> None:
        data_dir, truth = write_cache(tmp_path / "cache")
        inputs = some_inputs(truth)
        method = dataclasses.replace(QUICK, backbone="shake_shake_26", epochs=1, batch_size=60)
        found = []
        for name in ("a", "b"):
            request = stage_request(data_dir, inputs, tmp_path / name, method=method)
            outcome = run_stage(request)
            found.append(score_bytes(request, outcome))
        assert found[0] == found[1]
        assert len(set(scores(request, outcome)["confidence"].tolist())) > 10
        assert outcome.metrics["backbone"] == "shake_shake_26"
