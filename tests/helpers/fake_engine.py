"""An engine without Ray and without training: the driver and the search run as they are, and each
candidate that they give is finished at once, its stages put on record by made-up numbers.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray import tune

from orchestrator.engines.inline import Outcome, label_of, outcome_on_record
from orchestrator.engines.ray import cluster as clusters
from orchestrator.engines.ray import engine as engines
from orchestrator.engines.ray import node
from orchestrator.engines.ray.candidate import METRIC, SweepContext
from orchestrator.engines.ray.searcher import SourceSearcher
from orchestrator.search.source import Source
from orchestrator.sweeps.candidates import Candidate
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_records import StageRecord, from_object, put_stage
from search_spaces.reading.config import Trial

SPEC = """\
name: many
dataset: {{name: digits, validation: {{from: split, per_class: 10}}}}
budget: {{full_labels: 100}}
base:
  method: {{name: mean_teacher, consistency_weight: 10, epochs: 1}}
  schedule: {{initial_labels_per_class: 2, split: [0.5, 0.5]}}
vary: {vary}
seeds: {seeds}
search: {{algorithm: {algorithm}, {number}seed: 0}}
"""
"""Candidates of three stages each, whatever they are."""

STEP_SECONDS = 0.5
"""Of a stage under the real Tune."""


def spec_text(algorithm: str, candidates: int, seeds: int = 1) -> str:
    """Returns a spec that comes to so many candidates of three stages; a grid's number is rounded
    up to a square.
    """
    number = f"num_candidates: {candidates}, "
    vary = (
        "{method.consistency_weight: {loguniform: [1, 100]}, method.ema_decay: {uniform: [0.9,"
        " 0.999]}, schedule.split: {simplex: {floor: 0.05, step: 0.01}}}"
    )
    if algorithm == "grid":
        side = math.isqrt(candidates - 1) + 1
        weights, rates = ([start + n / 8 for n in range(side)] for start in (1.0, 0.125))
        vary = (
            f"{{method.consistency_weight: {{choice: {weights}}}, method.learning_rate: {{choice:"
            f" {rates}}}}}"
        )
        number = ""
    return SPEC.format(vary=vary, algorithm=algorithm, number=number, seeds=list(range(seeds)))


def value_of(candidate: Candidate) -> float:
    """Made-up validation accuracy of a candidate, in percent."""
    weight = candidate.trials[0].config.method.consistency_weight
    return round(90 - 20 * abs(math.log10(weight) - 1.5), 3)


def records_of(trial: Trial, value: float, data: str) -> Iterator[StageRecord]:
    """Yields the records that a trial's stages leave."""
    for stage in range(len(trial.schedule.quotas) + 1):
        row: dict[str, Any] = {
            "trial": trial.id,
            "stage": stage,
            "key": f"{trial.id}-{stage}",
            "parent": f"{trial.id}-{stage - 1}" if stage else None,
            "data": data,
            "bits": {"labels": trial.bits, "questions": 0.0, "total": trial.bits},
            "val_top1": value,
            "val_top1_best": value,
            "test_top1_last": value,
            "test_top1_at_best_val": value,
            "seconds": 1.0,
            "seed": trial.seed,
        }
        yield from_object(row)


@dataclass(slots=True)
class FakeEngine:
    """Takes the place of `run_on_ray`."""

    width: int = 8
    """Candidates at work at once."""
    die_after: int | None = None
    """Candidates drawn before the driver dies; None: it lives."""
    cpu_seconds: float = 0.0
    """Spent on what is the trainers' work, not the driver's."""
    _drawn: int = field(default=0, init=False)

    def run(
        self,
        layout: SweepLayout,
        source: Source,
        candidates: Sequence[Candidate],
        number: int,
        data: Any,
        resources: Any,
        device: str,
        cluster: Any,
        token: Any,
        progress: Any,
        estimate: Callable[[], int] | None,
        limits: Any,
    ) -> tuple[Outcome, dict[str, Any]]:
        searcher = SourceSearcher(source)
        running: deque[tuple[str, Candidate]] = deque()
        for drawn in range(number):
            given = searcher.suggest(str(drawn))
            if not isinstance(given, dict):
                break
            if self.die_after is not None and drawn >= self.die_after:
                raise KeyboardInterrupt
            running.append((str(drawn), given["candidate"]))
            if len(running) >= self.width:
                self._finish(*running.popleft(), layout, data, searcher, progress, estimate)
        while running:
            self._finish(*running.popleft(), layout, data, searcher, progress, estimate)
        return outcome_on_record(layout, candidates), {}

    def _finish(
        self,
        name: str,
        candidate: Candidate,
        layout: SweepLayout,
        data: Any,
        searcher: SourceSearcher,
        progress: Any,
        estimate: Callable[[], int] | None,
    ) -> None:
        """Puts a candidate's stages on record and tells the driver, an event at a time."""
        value = value_of(candidate)
        for trial in candidate.trials:
            began = time.process_time()
            records = list(records_of(trial, value, data.labelled_fingerprint))
            for record in records:
                put_stage(layout.trial(trial.id), record)
            self.cpu_seconds += time.process_time() - began
            for record in records:
                if estimate is not None:
                    progress.set_total(estimate())
                progress.stage_started(label_of(trial), record.stage)
                progress.stage_finished(label_of(trial), record)
        searcher.on_trial_complete(name, {METRIC: value})


class FakeTrainable(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """Takes the place of CandidateTrainable under the real Tune: a step is a stage of every seed,
    put on record at once and told to the real broker.
    """

    def setup(self, config: dict[str, Any], context: SweepContext | None = None) -> None:
        assert context is not None
        self._context = context
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        candidate: Candidate = new_config["candidate"]
        self._value, fingerprint = value_of(candidate), self._context.data.labelled_fingerprint
        self._left = [
            (trial, deque(records_of(trial, self._value, fingerprint)))
            for trial in candidate.trials
        ]
        return True

    def step(self) -> dict[str, Any]:
        # Candidates that end all at once would find no process of another to go on in, and a new
        # one each would be started for them.
        time.sleep(STEP_SECONDS)
        broker = self._context.broker
        for trial, left in self._left:
            record = left.popleft()
            broker.tell.remote(("stage_started", label_of(trial), record.stage))
            put_stage(self._context.layout.trial(trial.id), record)
            broker.tell.remote(("stage_finished", label_of(trial), record))
        return {METRIC: self._value, "done": not any(left for _, left in self._left)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Does nothing, as the real one."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Does nothing, as the real one."""


@contextmanager
def under_tune() -> Iterator[None]:
    """The real engine, Tune and broker run candidates that train nothing, while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "CandidateTrainable", FakeTrainable)
        yield


@contextmanager
def in_place(engine: FakeEngine) -> Iterator[None]:
    """The driver finds the fake engine where it looks for Ray's, while the block runs."""
    cluster = clusters.Cluster(address="fake", nodes=1, cpus=64, gpus=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "connect", lambda **where: nullcontext(cluster))
        patch.setattr(clusters, "quieten_ray", lambda **how: None)
        patch.setattr(node, "proved_shared", lambda store: nullcontext(None))
        patch.setattr(engines, "run_on_ray", engine.run)
        yield
