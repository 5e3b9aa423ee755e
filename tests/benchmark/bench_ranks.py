"""Images per second of one stage trained by one rank and by several at the same global batch. CPU
ranks meet over gloo, GPUs over nccl.

    python -m tests.benchmark.bench_ranks [--ranks 2] [--backbone wide_resnet_28_2]

Every training runs in fresh processes through the local launcher, also that of one rank, and is
done twice: with few epochs and with more. The difference of their images and of the seconds in
their metrics is what the further epochs took, without the start of processes, the first steps and
the predictions.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import torch

from orchestrator.engines.launch import LocalLauncher
from tests.benchmark.printed import hardware, spread
from tests.benchmark.random_stage import labelled_rows, random_cache, random_inputs
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.networks.precision import precision_used
from trainers.stage import StageRequest


def trained(request: StageRequest, world_size: int, epochs: int, folder: Path) -> tuple[int, float]:
    """Images and seconds of one stage, by its own metrics."""
    folder.mkdir(parents=True)
    plan = dataclasses.replace(request.plan, epochs=(0, epochs))
    request = dataclasses.replace(request, work_dir=folder, plan=plan)
    metrics = LocalLauncher(request.device, world_size).train(request).metrics
    return metrics["images"], metrics["seconds"]


def rate(request: StageRequest, world_size: int, epochs: tuple[int, int], folder: Path) -> float:
    """Images per second of the epochs that the longer training has beyond the shorter one."""
    few_images, few_seconds = trained(request, world_size, epochs[0], folder / "few")
    more_images, more_seconds = trained(request, world_size, epochs[1], folder / "more")
    if more_seconds <= few_seconds:
        raise SystemExit(
            f"{epochs[1]} epochs took no longer than {epochs[0]} ({more_seconds:.2f} s and"
            f" {few_seconds:.2f} s); raise --epochs or --steps"
        )
    return (more_images - few_images) / (more_seconds - few_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="wide_resnet_28_2")
    for name, value in (
        ("ranks", 2),
        ("size", 32),
        ("batch", 64),
        ("classes", 100),
        ("items", 2000),
        ("steps", 10),
        ("repeats", 3),
        ("threads", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--epochs", type=int, nargs=2, default=(1, 4), metavar=("FEW", "MORE"))
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    few, more = args.epochs
    worlds: dict[int, list[float]] = {1: [], args.ranks: []}
    with tempfile.TemporaryDirectory(prefix="bench-ranks-") as name:
        folder = Path(name)
        data = random_cache(
            folder / "cache", items=args.items, size=args.size, classes=args.classes
        )
        method = MeanTeacherConfig(
            backbone=args.backbone,
            batch_size=args.batch,
            labelled_per_batch=(labelled_rows(args.batch),),
            learning_rate=0.01,
            precision=args.precision,
        )
        request = StageRequest(
            key="bench",
            stage=1,
            seed=0,
            method=method,
            plan=method.stage(1, 1, has_negatives=True),
            data_dir=data.folder,
            inputs=random_inputs(
                items=args.items, classes=args.classes, batch=args.batch, steps=args.steps
            ),
            work_dir=folder,
            attempt="bench",
            threads=args.threads,
            device=args.device,
            checkpoint_seconds=1e9,
        )
        for number in range(args.repeats):
            for world_size, rates in worlds.items():
                rates.append(
                    rate(request, world_size, (few, more), folder / f"{number}-{world_size}")
                )
        used = precision_used(args.precision, args.device, data.kind)
    print(f"{hardware(args.device)} in each rank")
    print(
        f"{args.backbone}, {args.size} px, {args.classes} classes, global batch {args.batch},"
        f" {used}; n = {args.repeats}; median (min-max)"
    )
    print(
        f"measured: the {more - few} epochs of {args.steps} steps that {more} epochs have beyond"
        f" {few}; no start of processes, no predictions"
    )
    for world_size, rates in worlds.items():
        print(f"  {world_size} rank(s)          {spread(rates, '8.1f')} images/s")
    ratios = [many / one for one, many in zip(*worlds.values(), strict=True)]
    print(f"  speed-up           {spread(ratios)}, pair by pair")
    print(f"  share of linear    {spread([ratio / args.ranks for ratio in ratios])}")


if __name__ == "__main__":
    main()
