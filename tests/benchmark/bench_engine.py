"""Images per second of the training loop: as a share of what its arithmetic alone allows, and
beside the published loop.

    python -m tests.benchmark.bench_engine [--device cuda] [--backbone wide_resnet_28_2] [--parts
    limit,published,obcp] [--profile]

`limit`: the real loop (sampler, views, negatives, EMA, history) against the same step on one batch
    that lies on the device and is used again and again.
`obcp`: the same of ObCP's loop, with pairs of a class and exchanged keys.
`published`: the real loop against a reconstruction of the published one
(tests/benchmark/published_loop.py) with the same network. Each pair is run in turns in one process,
so that both meet the same load of the machine. An epoch has `--steps` steps; what an epoch costs
once counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.benchmark.printed import hardware, spread
from tests.benchmark.published_loop import PublishedLoop
from tests.benchmark.random_stage import labelled_rows, random_cache, random_inputs
from tests.helpers.obcp import obcp
from tests.helpers.stage_world import mean_teacher
from trainers.data.items import StageData
from trainers.mean_teacher.method import MeanTeacher
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.networks.precision import precision_used
from trainers.obcp.settings import ObcpConfig
from trainers.run import set_up
from trainers.stage import StageInputs

LIMIT_GOAL = {"cpu": 0.90, "cuda": 0.95}
PUBLISHED_GOAL = 10.0

Work = Callable[[], int]
"""Trains some steps and returns how many."""


def plain_set_up() -> None:
    """Torch as a plain script finds it, with cuDNN free to try algorithms out."""
    torch.set_deterministic_debug_mode("default")
    torch.backends.cudnn.benchmark = True


class RealLoop:
    """Epochs of the real trainer, one after the other, with the one wait for the device that
    `run_stage` makes too.
    """

    def __init__(
        self, config: MeanTeacherConfig, data: StageData, inputs: StageInputs, device: torch.device
    ) -> None:
        self.device, self.trainer = device, new_trainer(config, data, inputs, device)
        self.epoch = 0

    def __call__(self) -> int:
        set_up(self.device, torch.get_num_threads())
        history = self.trainer.train_epoch(self.epoch).cpu()
        self.epoch += 1
        return len(history)


class PureMath:
    """The trainer's step and nothing else, on one batch that lies on the device and never
    changes.
    """

    def __init__(
        self,
        config: MeanTeacherConfig,
        data: StageData,
        inputs: StageInputs,
        device: torch.device,
        *,
        steps: int,
    ) -> None:
        self.config, self.device, self.steps = config, device, steps
        self.trainer = new_trainer(config, data, inputs, device)
        self.batch = next(iter(self.trainer.batches(0, self.trainer.sampler.epoch(0))))

    def __call__(self) -> int:
        set_up(self.device, torch.get_num_threads())
        config = self.config
        for _ in range(self.steps):
            self.trainer.take_step(
                self.batch,
                consistency_weight=config.consistency_weight,
                learning_rate=config.learning_rate,
                batch_size=config.batch_size,
            )
        return self.steps


class ObcpLoop:
    """Epochs of ObCP's trainer after the first question, as RealLoop; with `steps` its step alone,
    on one batch that never changes.
    """

    def __init__(
        self,
        config: ObcpConfig,
        data: StageData,
        inputs: StageInputs,
        device: torch.device,
        *,
        steps: int | None = None,
    ) -> None:
        self.device, self.steps, self.epoch = device, steps, 0
        self.trainer = obcp(config, data, inputs, device=device)
        self.batch = next(self.trainer.epoch_batches(0)[1])
        self.trainer.encoder.train()
        self.trainer.key.train()

    def __call__(self) -> int:
        set_up(self.device, torch.get_num_threads())
        if self.steps is None:
            history = self.trainer.train_epoch(self.epoch).cpu()
            self.epoch += 1
            return len(history)
        for _ in range(self.steps):
            self.trainer.take_step(self.batch, 0, learning_rate=0.001)
        return self.steps


def obcp_loops(
    args: argparse.Namespace, data: StageData, inputs: StageInputs, device: torch.device
) -> tuple[ObcpLoop, ObcpLoop]:
    """Epochs after the first question, and the step alone."""
    config = ObcpConfig(
        backbone=args.backbone,
        epochs=args.repeats + 2,
        first_query_epoch=0,
        batch_size=args.batch,
        queue_size=4 * args.batch,
        labelled_share=labelled_rows(args.batch) / args.batch,
        learning_rate=0.001,
        precision=args.precision,
    )
    return (
        ObcpLoop(config, data, inputs, device),
        ObcpLoop(config, data, inputs, device, steps=args.steps),
    )


def new_trainer(
    config: MeanTeacherConfig, data: StageData, inputs: StageInputs, device: torch.device
) -> MeanTeacher:
    return mean_teacher(config, data, inputs, device=device)


def rate(work: Work, batch: int, device: torch.device) -> float:
    """Images per second of one run, all work of the device included."""

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    start = finished()
    steps = work()
    return steps * batch / (finished() - start)


def in_turns(
    first: Work, second: Work, *, batch: int, device: torch.device, repeats: int
) -> tuple[list[float], list[float]]:
    """Images per second of both, run ABAB after one run of each to warm up."""
    rates = [(rate(first, batch, device), rate(second, batch, device)) for _ in range(repeats + 1)][
        1:
    ]
    return [one for one, _ in rates], [other for _, other in rates]


def print_pair(names: tuple[str, str], rates: tuple[list[float], list[float]], goal: str) -> None:
    for name, values in zip(names, rates, strict=True):
        print(f"  {name:44} {spread(values, '8.1f')} images/s")
    ratios = [one / other for one, other in zip(*rates, strict=True)]
    print(f"  {'ratio, pair by pair':44} {spread(ratios)}; {goal}")


def print_profile(work: Work, device: torch.device) -> None:
    """The fifteen operations that take the most time of an epoch of the real loop."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    ) as found:
        work()
    by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="wide_resnet_28_2")
    for name, value in (
        ("size", 32),
        ("batch", 64),
        ("classes", 100),
        ("items", 2000),
        ("steps", 10),
        ("repeats", 5),
        ("threads", 1),
        ("workers", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--parts", default="limit,published")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    config = MeanTeacherConfig(
        backbone=args.backbone,
        epochs=args.repeats + 2,
        batch_size=args.batch,
        labelled_per_batch=(labelled_rows(args.batch),),
        learning_rate=0.01,
        precision=args.precision,
    )
    with tempfile.TemporaryDirectory(prefix="bench-engine-") as folder:
        data = random_cache(
            Path(folder) / "cache", items=args.items, size=args.size, classes=args.classes
        )
        inputs = random_inputs(
            items=args.items, classes=args.classes, batch=args.batch, steps=args.steps
        )
        used = precision_used(args.precision, args.device, data.kind)
        print(hardware(args.device))
        print(
            f"{args.backbone}, {args.size} px, {args.classes} classes, batch {args.batch},"
            f" {args.steps} steps a run, n = {args.repeats}; median (min-max)"
        )
        if "limit" in args.parts.split(","):
            limit = PureMath(config, data, inputs, device, steps=args.steps)
            rates = in_turns(
                RealLoop(config, data, inputs, device),
                limit,
                batch=args.batch,
                device=device,
                repeats=args.repeats,
            )
            names = f"real loop, {used}", f"pure math, {used}"
            print_pair(names, rates, f"goal {LIMIT_GOAL[device.type]:.2f} on this device")
        if "obcp" in args.parts.split(","):
            loop, alone = obcp_loops(args, data, inputs, device)
            rates = in_turns(loop, alone, batch=args.batch, device=device, repeats=args.repeats)
            names = f"ObCP's loop, {used}", f"its step alone, {used}"
            print_pair(names, rates, f"goal {LIMIT_GOAL[device.type]:.2f} on this device")
        if "published" in args.parts.split(","):
            published = PublishedLoop(config, data, inputs, device=device, workers=args.workers)

            def theirs() -> int:
                plain_set_up()
                return published.train_epoch()

            rates = in_turns(
                RealLoop(config, data, inputs, device),
                theirs,
                batch=args.batch,
                device=device,
                repeats=args.repeats,
            )
            names = (
                f"real loop, {used}, no other process",
                f"published, fp32, and {args.workers} DataLoader process(es)",
            )
            note = (
                ""
                if device.type == "cuda"
                else "; on a CPU the network's arithmetic dominates both, so the ratio is small"
            )
            print_pair(names, rates, f"goal {PUBLISHED_GOAL:.0f} on a GPU{note}")
        if args.profile:
            work = RealLoop(config, data, inputs, device)
            work()
            print_profile(work, device)


if __name__ == "__main__":
    main()
