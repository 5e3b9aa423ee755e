"""Where a stage is trained: in this process, or in torch.distributed processes of this machine. (On
a Ray cluster: orchestrator.engines.ray.worker_group.)
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.engines.patience import Deaths
from orchestrator.machine import usable_cpus
from orchestrator.sweeps.stage_store import epochs_done, new_attempt
from search_spaces.reading.config import ResourcesConfig
from trainers.errors import UserError
from trainers.stage import StageOutcome, StageRequest, TrainingFailed

OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class InlineLauncher:
    """Trains in the calling process: no processes, no ports; a debugger can step from the sweep
    into the loss.
    """

    device: str
    on_epoch: OnEpoch | None = None

    @property
    def world_size(self) -> int:
        return 1

    @property
    def device_kind(self) -> str:
        return self.device.partition(":")[0]

    def train(self, request: StageRequest) -> StageOutcome:
        from trainers.run import (
            run_stage,
        )  # torch is loaded when the first stage trains, not before

        return run_stage(request, on_epoch=self.on_epoch)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RankDied(TrainingFailed):
    """A process of the stage is gone without a word: killed, or out of memory."""


def device_of_rank(device: str, rank: int) -> str:
    """Each rank of a machine has a GPU of its own: `cuda` means the one with its number."""
    return f"cuda:{rank}" if device == "cuda" else device


def _rank_main(rank: int, world_size: int, port: int, request: StageRequest, answers: Any) -> None:
    from trainers.distributed.process_group import process_group
    from trainers.run import run_stage

    request = dataclasses.replace(request, device=device_of_rank(request.device, rank))
    try:
        with process_group(
            rank=rank, world_size=world_size, address="127.0.0.1", port=port, device=request.device
        ) as ranks:
            outcome = run_stage(request, ranks)
        answers.put((rank, outcome))
    except (TrainingFailed, UserError, OSError) as error:
        answers.put((rank, error))


@dataclass(frozen=True, slots=True)
class LocalLauncher:
    """Trains in `world_size` processes of this machine, joined by gloo (CPU) or nccl (GPU). No
    Ray.
    """

    device: str
    world_size: int
    max_failures: int = 0
    """How often in a row ranks that died are started anew, from the stage's last checkpoint,
    without getting further.
    """

    @property
    def device_kind(self) -> str:
        return self.device.partition(":")[0]

    def train(self, request: StageRequest) -> StageOutcome:
        """Raises:
        TrainingFailed: the stage itself failed, or ranks died once too often without getting
            further; what its checkpoints hold is kept.
        """
        deaths = Deaths(self.max_failures, epochs_done(request.work_dir))
        while True:
            try:
                return self._attempt(request)
            except RankDied:
                if deaths.too_many(epochs_done(request.work_dir)):
                    raise
                request = dataclasses.replace(request, attempt=new_attempt())

    def _attempt(self, request: StageRequest) -> StageOutcome:
        context = multiprocessing.get_context("spawn")
        answers = context.Queue()
        port = _free_port()
        ranks = [
            context.Process(
                target=_rank_main,
                args=(rank, self.world_size, port, request, answers),
                daemon=True,
                name=f"rank-{rank}",
            )
            for rank in range(self.world_size)
        ]
        for process in ranks:
            process.start()
        try:
            return self._first_answer(ranks, answers)
        finally:
            for process in ranks:
                process.kill()
                process.join()

    def _first_answer(self, ranks: list[Any], answers: Any) -> StageOutcome:
        import queue

        while True:
            try:
                rank, answer = answers.get(timeout=0.2)
            except queue.Empty:
                for number, process in enumerate(ranks):
                    if process.exitcode not in (None, 0):
                        raise RankDied(
                            f"rank {number} of {self.world_size} ended with exit code"
                            f" {process.exitcode}; `orchestrate retry` goes on from its last"
                            " checkpoint"
                        ) from None
                continue
            if isinstance(answer, Exception):
                raise answer
            if rank == 0:
                outcome: StageOutcome = answer
                return outcome


def choose_device(resources: ResourcesConfig) -> str:
    """Returns `cuda` if the spec asks for GPUs, else `cpu`.

    Raises:
        UserError: GPUs are asked for and this machine has too few.
    """
    if resources.gpus_per_worker == 0:
        return "cpu"
    import torch

    wanted = resources.workers * max(1, round(resources.gpus_per_worker))
    if torch.cuda.device_count() < wanted:
        raise UserError(
            f"resources.gpus_per_worker: {resources.gpus_per_worker} x {resources.workers}"
            f" worker(s) needs {wanted} GPU(s), and this machine has {torch.cuda.device_count()}."
            " Add --set resources.gpus_per_worker=0 to train on the CPU."
        )
    return "cuda:0" if resources.workers == 1 else "cuda"


def check_cpus(resources: ResourcesConfig) -> None:
    """Raises UserError where this machine has fewer CPUs than one stage asks for."""
    wanted, has = resources.workers * resources.cpus_per_worker, usable_cpus()
    if wanted > has:
        raise UserError(
            f"resources.workers = {resources.workers} with resources.cpus_per_worker ="
            f" {resources.cpus_per_worker} needs {wanted} CPU(s), and this process may use {has}."
            " Lower one of them."
        )


def make_launcher(
    resources: ResourcesConfig, on_epoch: OnEpoch | None = None
) -> InlineLauncher | LocalLauncher:
    device = choose_device(resources)
    if resources.workers == 1:
        return InlineLauncher(device, on_epoch)
    return LocalLauncher(device, resources.workers, resources.max_failures)
