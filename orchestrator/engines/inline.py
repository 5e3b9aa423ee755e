"""Runs a sweep in this process, one trial after another. No Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from orchestrator.data.prepare import PreparedData
from orchestrator.engines.launch import make_launcher
from orchestrator.engines.limits import Limited, Limits
from orchestrator.engines.progress import Progress
from orchestrator.reporting.candidate_names import SEPARATOR
from orchestrator.search.source import Source
from orchestrator.search.values import value_of
from orchestrator.sweeps.candidates import Candidate, is_failed, is_finished
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_records import StageRecord
from orchestrator.sweeps.stage_store import (
    LimitReached,
    LockedStages,
    StageArtefact,
    StageStore,
)
from orchestrator.trial import TrialContext, attempt_trial, open_pool
from search_spaces.reading.config import ResourcesConfig, Trial
from trainers.stage import StageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the run of a sweep ended."""

    failed: tuple[str, ...]
    """Ids of failed trials, those of earlier runs among them."""
    waiting: tuple[str, ...]
    """Ids of unfinished trials: those whose round is open, and those that were given up."""
    limit: str | None = None
    """The limit of the sweep's own that stopped it."""


def outcome_on_record(layout: SweepLayout, candidates: Sequence[Candidate]) -> Outcome:
    """Returns how the trials of these candidates stand."""
    layout = SweepLayout(layout.store.view())
    trials = [trial for candidate in candidates for trial in candidate.trials]
    # In order, and found at once: thousands may have failed.
    failed = {trial.id: None for trial in trials if is_failed(layout, trial)}
    return Outcome(
        failed=tuple(failed),
        waiting=tuple(
            trial.id
            for trial in trials
            if trial.id not in failed and not is_finished(layout, trial)
        ),
    )


def label_of(trial: Trial) -> str:
    """How the processes that train name a trial; people read what CandidateNames makes of it."""
    return f"{trial.candidate}{SEPARATOR}seed {trial.seed}"


@dataclass(frozen=True, slots=True)
class ProgressWatcher:
    """Passes on what a trial loop says to the progress display."""

    progress: Progress

    def stage_started(self, trial: Trial, stage: int) -> None:
        self.progress.stage_started(label_of(trial), stage)

    def stage_finished(self, trial: Trial, record: StageRecord) -> None:
        self.progress.stage_finished(label_of(trial), record)


def run_inline(
    layout: SweepLayout,
    source: Source,
    candidates: Sequence[Candidate],
    data: PreparedData,
    resources: ResourcesConfig,
    progress: Progress,
    limits: Limits,
    estimate: Callable[[], int] | None = None,
) -> Outcome:
    """Runs every trial of the candidates that `source` gives until it is finished, has failed with
    its reason on record, or waits for answers; or until a limit is reached. A search that learns is
    told of each candidate before it gives the next.

    Args:
        candidates: all of the sweep; grows as a search draws them.
        estimate: how many stage trainings a search will come to, by the candidates drawn so far.
    """
    current: list[tuple[str, int]] = []

    def on_epoch(info: dict[str, Any]) -> None:
        progress.epoch(*current[-1], info["epoch"], info["epochs"])

    launcher = make_launcher(resources, on_epoch)
    context = TrialContext(
        layout=layout,
        data=data,
        stages=_Fenced(LockedStages(StageStore(layout.store), Limited(launcher, limits)), layout),
        resources=resources,
        observer=_Current(ProgressWatcher(progress), current),
        device=launcher.device,
    )
    there = SweepLayout(layout.store.view())
    while (candidate := source.next()) is not None:
        if estimate is not None:
            progress.set_total(estimate())
        for trial in candidate.trials:
            # One that was drawn just now has nothing on record that an older view could lack.
            if is_finished(there, trial) or is_failed(there, trial):
                continue
            pool = open_pool(trial, data, layout.trial(trial.id).segments)
            try:
                attempt_trial(trial, pool, context, partial(progress.trial_failed, label_of(trial)))
            except LimitReached as reached:
                return replace(outcome_on_record(layout, candidates), limit=str(reached))
        source.tell(candidate, value_of(layout, candidate))
    return outcome_on_record(layout, candidates)


@dataclass(frozen=True, slots=True)
class _Fenced:
    """Stages of a driver that stops before the next one where another driver has taken over."""

    stages: LockedStages
    layout: SweepLayout

    @property
    def world_size(self) -> int:
        return self.stages.world_size

    @property
    def device_kind(self) -> str:
        return self.stages.device_kind

    def obtain(self, request: StageRequest) -> StageArtefact:
        self.layout.store.check_held(self.layout.lock)
        return self.stages.obtain(request)


@dataclass(frozen=True, slots=True)
class _Current:
    """Remembers which stage trains now, so that epochs can be shown under its name."""

    observer: ProgressWatcher
    current: list[tuple[str, int]]

    def stage_started(self, trial: Trial, stage: int) -> None:
        self.current[:] = [(label_of(trial), stage)]
        self.observer.stage_started(trial, stage)

    def stage_finished(self, trial: Trial, record: StageRecord) -> None:
        self.observer.stage_finished(trial, record)
