"""What a candidate has reached: all that a search learns from."""

from __future__ import annotations

from statistics import fmean

from orchestrator.sweeps.candidates import Candidate, is_finished
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_records import read_stage
from search_spaces.reading.config import Trial


def value_of(layout: SweepLayout, candidate: Candidate) -> float | None:
    """Mean over the candidate's seeds of the last stage's validation accuracy in percent; None
    unless every seed has finished.
    """
    if not all(is_finished(layout, trial) for trial in candidate.trials):
        return None
    values = [_last_validation(layout, trial) for trial in candidate.trials]
    return fmean(value for value in values if value is not None) if None not in values else None


def _last_validation(layout: SweepLayout, trial: Trial) -> float | None:
    record = read_stage(layout.trial(trial.id), len(trial.schedule.quotas))
    return None if record is None else record.validation
