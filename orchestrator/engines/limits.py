"""When a run of a sweep stops by itself: after so many hours, or GPU hours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orchestrator.sweeps.stage_store import LimitReached, StageTrainer
from search_spaces.reading.config import ResourcesConfig
from trainers.stage import StageOutcome, StageRequest


@dataclass(slots=True)
class Limits:
    """Of one run of a sweep. Reached, they keep further stages from being started; those in
    training are left to end.
    """

    max_hours: float | None = None
    max_gpu_hours: float | None = None
    gpus: float = 0.0
    """Of one stage training, over all its ranks."""
    clock: Callable[[], float] = time.time
    """One that processes have in common, for a broker that is started again goes on with it."""
    began: float = field(default=-1.0)
    gpu_seconds: float = 0.0
    """Of trainings that have ended, those that broke among them."""
    _running: dict[object, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = self.clock() if self.began < 0 else self.began

    @contextmanager
    def training(self) -> Iterator[None]:
        """Counts a training while the block runs."""
        token = object()
        self._running[token] = self.clock()
        try:
            yield
        finally:
            self.gpu_seconds += self.gpus * (self.clock() - self._running.pop(token))

    def check(self) -> None:
        """Raises LimitReached where no further stage may be started; the message names the
        limit.
        """
        now = self.clock()
        if self.max_hours is not None and now - self.began >= 3600 * self.max_hours:
            raise LimitReached(f"resources.max_hours = {self.max_hours:g}")
        used = self.gpu_seconds + self.gpus * sum(now - since for since in self._running.values())
        if self.max_gpu_hours is not None and used >= 3600 * self.max_gpu_hours:
            raise LimitReached(f"resources.max_gpu_hours = {self.max_gpu_hours:g}")


def limits_of(resources: ResourcesConfig) -> Limits:
    """Returns the limits of a run that begins now."""
    return Limits(
        resources.max_hours,
        resources.max_gpu_hours,
        gpus=resources.workers * resources.gpus_per_worker,
    )


@dataclass(frozen=True, slots=True)
class Limited:
    """A launcher that starts no stage once a limit is reached."""

    launcher: StageTrainer
    limits: Limits

    @property
    def world_size(self) -> int:
        return self.launcher.world_size

    @property
    def device_kind(self) -> str:
        return self.launcher.device_kind

    def train(self, request: StageRequest) -> StageOutcome:
        """Raises LimitReached where no further stage may be started."""
        self.limits.check()
        with self.limits.training():
            return self.launcher.train(request)
