"""The report of a sweep: one dictionary that every form of it (JSON, Markdown, CSV, HTML, terminal) is written from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator import results
from orchestrator.anchors import anchors
from orchestrator.comparison import CHOICE_RULE, EQUAL_BITS, Comparison, Row, Standing, compare, difference, main_comparison, rows
from orchestrator.layout import SweepLayout
from orchestrator.report_terminal import render as render
from orchestrator.results import StageRecord, SweepResults, TrialResult, printable
from orchestrator.statistics import break_even, summarise
from orchestrator.storage import commit_file
from search_spaces.schedule import annotation_hours
from search_spaces.trials import stage_prefixes

INTERVAL_RULE: Final = "95% interval of Student's t on differences paired by seed, not corrected for the number of rows"

METRICS: Final[dict[str, Callable[[StageRecord], float | None]]] = {
    "val_top1": lambda record: record.val_top1,
    "test_top1_last": lambda record: record.test_top1_last,
    "test_top1_at_best_val": lambda record: record.test_top1_at_best_val,
}
"""Accuracies of the last stage, in percent."""


def build(sweep: SweepResults) -> dict[str, Any]:
    """Everything that the report says, as plain JSON values. Equal folders give equal dictionaries.

    Accuracies in percent; std is the sample one and null below two seeds. `yes`, `no`, `wasted` and the numbers of `rounds` are means over the finished seeds,
    as `bits` and `stages` are. Differences to the baseline are paired by seed and given only at equal bits.
    """
    table = rows(sweep)
    comparisons, standings = compare(table, sweep.baseline)
    main = main_comparison(comparisons, standings)
    facts = sweep.trials[0].trial.facts if sweep.trials else None
    lines = [_row(table, index, standings[index], comparisons) for index in range(len(table))]
    return {
        "name": sweep.name,
        "budget_bits": comparisons[main].budget_bits if main is not None else max((row.budget_bits for row in table), default=None),
        "rows": lines,
        "stage_trainings": stage_trainings(sweep),
        "failed": failed(sweep),
        "dataset": None if facts is None else {key: getattr(facts, key) for key in ("name", "num_classes", "train_items", "test_items")},
        "search": {"algorithm": sweep.algorithm, "num_candidates": sweep.num_candidates, "candidates": len(sweep.candidates)},
        "baseline": sweep.baseline,
        "trials": {state: sum(result.state == state for result in sweep.trials) for state in ("finished", "failed", "running", "pending")},
        "comparisons": [_comparison(comparison, number == main) for number, comparison in enumerate(comparisons)],
        "apart": [{"row": index, "reason": standing.reason} for index, standing in enumerate(standings) if standing.comparison is None],
        "break_even": None if facts is None else break_even(facts.num_classes),
        "rules": {"choice": CHOICE_RULE, "equal_bits_share": EQUAL_BITS, "interval": INTERVAL_RULE},
        "made_on": made_on(sweep),
        "anchors": anchors(table),
        "damaged": [printable(place) for place in sweep.damaged],
    }


def stage_trainings(sweep: SweepResults) -> dict[str, int]:
    """Trainings of the trials drawn so far: in all, distinct by configuration, and how many of the finished stages were trained and shared."""
    prefixes = [prefix for result in sweep.trials for prefix in stage_prefixes(result.trial)]
    records = [record for result in sweep.trials for record in result.records]
    trained = sum(record.trained for record in records)
    return {"total": len(prefixes), "distinct": len(set(prefixes)), "trained": trained, "shared": len(records) - trained}


def failed(sweep: SweepResults) -> list[dict[str, Any]]:
    return [
        {
            "trial": result.trial.id,
            "cases": list(result.trial.cases),
            "seed": result.trial.seed,
            "stage": result.failure.stage,
            "kind": result.failure.kind,
            "message": result.failure.message,
        }
        for result in sweep.trials
        if result.state == "failed" and result.failure is not None
    ]


def made_on(sweep: SweepResults) -> dict[str, list[str]]:
    """What trained the stages, every value that occurs: results from unlike devices or precisions are not alike."""
    records = [record for result in sweep.trials for record in result.records]
    return {name: sorted({getattr(record, name) for record in records} - {""}) for name in ("device", "precision", "backbone")}


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where the forms of a report were written."""

    html: Path
    markdown: Path
    csv: Path
    """A line per row and seed."""
    csv_rows: Path
    """A line per row."""
    json: Path


def write(layout: SweepLayout, report: dict[str, Any] | None = None) -> ReportPaths:
    """Writes the report of what is on disk now (or one that was built) into the sweep's folder, in every form; each file is replaced as a whole.

    Raises:
        StorageError: the folder cannot be written.
    """
    from orchestrator.report_html import html
    from orchestrator.report_text import csv_by_row, csv_by_seed, markdown

    report = build(results.load(layout)) if report is None else report
    texts = {
        "report.html": html(report),
        "report.md": markdown(report),
        "report.csv": csv_by_seed(report),
        "report-rows.csv": csv_by_row(report),
        "report.json": json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        commit_file(layout.report / name, text.encode(), replace=True)
    return ReportPaths(*(layout.report / name for name in texts))


def _row(table: list[Row], index: int, standing: Standing, comparisons: list[Comparison]) -> dict[str, Any]:
    row = table[index]
    trials = row.candidate.trials
    schedule = trials[0].trial.schedule if trials else None
    comparison = comparisons[standing.comparison] if standing.comparison is not None else None
    base = table[standing.baseline] if standing.baseline is not None else None
    hours = summarise([annotation_hours(result.trial.schedule.initial_labels, sum(record.questions for record in result.records)) for result in row.finished])
    return {
        "case": row.case,
        "settings": dict(row.candidate.settings),
        "schedule": None if schedule is None else {"initial_labels": schedule.initial_labels, "quotas": list(schedule.quotas)},
        "n": row.n,
        "bits": row.mean(lambda record: record.bits),
        "stages": _stages(row, lambda record: record.test_top1_last)[0],
        **{name: _mean_std(row, read) for name, read in METRICS.items()},
        **{name: _total(row, name) for name in ("yes", "no", "wasted")},
        "per_seed": [_seed(result) for result in row.finished],
        "label": row.label,
        "candidate": row.candidate.id,
        "seeds": len(trials),
        "budget_bits": row.budget_bits,
        "label_bits": row.mean(lambda record: record.label_bits),
        "question_bits": row.mean(lambda record: record.question_bits),
        "validation_bits": row.mean(lambda record: record.validation_bits),
        "annotation_hours": hours.mean,
        "questions": _total(row, "questions"),
        "skipped": _total(row, "skipped"),
        "unspent": row.mean(lambda record: record.unspent),
        "stage_bits": _stages(row, lambda record: record.bits)[0],
        "stage_std": _stages(row, lambda record: record.test_top1_last)[1],
        "val_stages": _stages(row, lambda record: record.val_top1)[0],
        "rounds": [_round(row, number) for number in range(1, len(schedule.quotas) + 1)] if schedule is not None and row.n else [],
        "comparable": comparison is not None,
        "reason": standing.reason,
        "is_baseline": standing.baseline == index,
        "is_best": comparison is not None and comparison.best == index,
        "difference": {name: None if base is None or base is row else asdict(difference(row, base, read)) for name, read in METRICS.items()},
        "unfinished": [_seed(result) | {"state": result.state} for result in trials if result.state != "finished"],
    }


def _mean_std(row: Row, read: Callable[[StageRecord], float | None]) -> dict[str, float | None]:
    summary = row.summary(read)
    return {"mean": summary.mean, "std": summary.std}


def _total(row: Row, name: str) -> float | None:
    """Sum over the rounds of a trial, mean over the finished seeds."""
    return summarise([sum(getattr(record, name) for record in result.records) for result in row.finished]).mean


def _stages(row: Row, read: Callable[[StageRecord], float | None]) -> tuple[list[float | None], list[float | None]]:
    """Mean and std after each training over the finished seeds, in order."""
    length = len(row.finished[0].records) if row.finished else 0
    columns = [[value for result in row.finished if (value := read(result.records[stage])) is not None] for stage in range(length)]
    summaries = [summarise(column) for column in columns]
    return [summary.mean for summary in summaries], [summary.std for summary in summaries]


def _round(row: Row, number: int) -> dict[str, Any]:
    """Round `number`, counted from 1: means over the finished seeds."""
    records = [result.records[number] for result in row.finished]
    accuracy = summarise([record.guess_accuracy for record in records if record.guess_accuracy is not None])
    counts = {name: summarise([getattr(record, name) for record in records]).mean for name in ("questions", "yes", "no", "skipped", "wasted")}
    even = break_even(row.finished[0].trial.facts.num_classes)
    # How many labels a question buys for what one full label costs: above 1 it was worth asking.
    worth = {name: None if accuracy.mean is None else accuracy.mean / value for name, value in even.items()}
    return {"round": number, **counts, "guess_accuracy": {"n": accuracy.n, "mean": accuracy.mean, "std": accuracy.std}, "worth": worth}


def _seed(result: TrialResult) -> dict[str, Any]:
    last = result.records[-1] if result.records else None
    return {
        "seed": result.trial.seed,
        "trial": result.trial.id,
        "bits": result.bits,
        "val_top1": last.val_top1 if last else None,
        "test_top1_last": last.test_top1_last if last else None,
        "stages": [record.test_top1_last for record in result.records],
        "test_top1_at_best_val": last.test_top1_at_best_val if last else None,
        "stage_bits": [record.bits for record in result.records],
        "val_stages": [record.val_top1 for record in result.records],
        "guess_accuracy": [record.guess_accuracy for record in result.records[1:]],
        **{name: sum(getattr(record, name) for record in result.records) for name in ("questions", "yes", "no", "skipped", "wasted")},
        "unspent": last.unspent if last else None,
    }


def _comparison(comparison: Comparison, main: bool) -> dict[str, Any]:
    return {
        "main": main,
        "budget_bits": comparison.budget_bits,
        "bits": list(comparison.bits),
        "rows": list(comparison.members),
        "best": comparison.best,
        "no_best": comparison.no_best,
        "not_separated": list(comparison.not_separated),
    }
