"""Hours of people's work that a trial took."""

from __future__ import annotations

from orchestrator.labelling.answers import NO
from orchestrator.labelling.ledger import Ledger, as_sets
from orchestrator.reporting.results import TrialResult
from search_spaces.reading.schedule import annotation_hours, task_seconds


def bought(result: TrialResult) -> int:
    """Returns how many full labels a trial bought inside its budget: |D_S|, which blind draws
    decide in the end, and those of its rounds.
    """
    return round(result.records[-1].label_bits / result.trial.label_bits)


def people_hours(result: TrialResult) -> float:
    """Returns the hours of people's work for what a finished trial bought and asked. Where an
    answer's time depends on the classes that a question names, these are read from the ledger.

    Raises:
        LedgerError: the ledger must be read and is damaged.
    """
    questions = sum(record.questions for record in result.records)
    task = result.trial.config.task
    takes = task_seconds(task, result.trial.facts.num_classes)
    seconds = takes.question
    if questions and takes.longest != takes.question:
        seconds = task.answer_seconds(_classes(result) / questions)
    return annotation_hours(bought(result), questions, seconds, takes.label)


def _classes(result: TrialResult) -> int:
    """Classes that all answered questions of a trial name."""
    return sum(
        int(as_sets(segment.columns["guess"]).sizes[segment.columns["answer"] >= NO].sum())
        for segment in Ledger(result.files.segments).read()
        if segment.kind == "answers"
    )
