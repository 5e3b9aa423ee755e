"""Bytes that one stage leaves and moves: python -m tests.benchmark.stage_bytes
        [--backbone resnet50] [--size 224] [--classes 1000] [--pool 1281167] [--test 50000]

The checkpoint and the model are made as a stage makes them, after one step on a few random images;
the score arrays are those of a few images, counted up to the pool's. Nothing is trained.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from tests.benchmark.printed import hardware
from tests.benchmark.random_stage import TEST_ITEMS, random_cache, random_inputs
from tests.helpers.stage_world import mean_teacher
from trainers import checkpoint
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.stage import POOL_ARRAYS

BATCH, ITEMS = 4, 64
TEST_ARRAYS = 2
"""Guesses on the test images that a stage keeps: after the last epoch and at the best one."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--pool", type=int, default=1_281_167)
    parser.add_argument("--test", type=int, default=50_000)
    args = parser.parse_args()
    config = MeanTeacherConfig(
        backbone=args.backbone, epochs=1, batch_size=BATCH, labelled_per_batch=(2,)
    )
    with tempfile.TemporaryDirectory() as folder:
        data = random_cache(
            Path(folder) / "cache", items=ITEMS, size=args.size, classes=args.classes
        )
        inputs = random_inputs(items=ITEMS, classes=args.classes, batch=BATCH, steps=1)
        trainer = mean_teacher(config, data, inputs)
        trainer.train_epoch(0)
        sizes = {
            "checkpoint": len(checkpoint.to_bytes(trainer.state())),
            "model": len(checkpoint.to_bytes(trainer.model())),
        }
        pool = trainer.scores("pool", inputs.pool_ids, POOL_ARRAYS)
        test = trainer.scores("test", torch.arange(TEST_ITEMS).numpy(), ("guess",))
    each = inputs.pool_ids.itemsize + sum(a.nbytes for a in pool.values()) / len(inputs.pool_ids)
    sizes["arrays of the pool"] = round(each * args.pool)
    sizes["arrays of the test set"] = round(
        TEST_ARRAYS * test["guess"].nbytes / TEST_ITEMS * args.test
    )
    print(hardware())
    print(f"{args.backbone}, {args.size} px, {args.classes} classes, a pool of {args.pool} images")
    for what, size in sizes.items():
        print(f"  {what:24} {size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
