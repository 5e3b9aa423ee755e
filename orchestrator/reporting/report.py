"""The report of a sweep: one dictionary that every form of it (JSON, Markdown, CSV, HTML, terminal)
is written from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from orchestrator.reporting.comparison import (
    CHOICE_RULE,
    EQUAL_BITS,
    Comparison,
    ComparisonResult,
    compare,
    main_comparison,
    rows,
)
from orchestrator.reporting.effects import EFFECT_RULE, effects
from orchestrator.reporting.gaps import (
    SIGNIFICANCE,
    Gap,
    corrected,
    difference,
    test_difference,
    validation_difference,
)
from orchestrator.reporting.hours import bought, people_hours
from orchestrator.reporting.orderings import ORDERING_RULE, orderings
from orchestrator.reporting.published import anchors
from orchestrator.reporting.results import StageRecord, SweepResults, TrialResult, printable
from orchestrator.reporting.rows import Row
from orchestrator.reporting.statistics import BREAK_EVEN, Difference, break_even_of, summarise
from orchestrator.reporting.terminal import render as render
from orchestrator.reporting.words import measured
from orchestrator.sweeps.stage_records import TOP1
from search_spaces.reading.schedule import task_seconds
from search_spaces.reading.trials import stage_prefixes

if TYPE_CHECKING:
    from orchestrator.sweeps.correctness import Correct

INTERVAL_RULE: Final = (
    "95% interval of one difference, not corrected for the number of rows. On the test images and"
    " on a fixed validation split it is paired by seed and by image and holds both errors: another"
    " seed, and other images. Where it is not on record which images were right, the test has the"
    " seeds' spread alone, and a validation split a bound for the images besides (two independent"
    " binomials). Of a metric that is no share of right guesses, such as mAP, both have the seeds'"
    " spread alone: such an interval holds no error of the images and is too narrow"
)
HOLM_RULE: Final = (
    "significant: at 5% in the whole table after Holm's correction, over the other rows for"
    " differences to the baseline and over every pair of rows for those to the leading row; never"
    " with one seed, and never by an interval without width"
)
LIKE_RULE: Final = (
    "what differs beside the schedule, the labels and the questions is named; a row that differs"
    " from the baseline in method, epochs, network, data, validation images or oracle is not like"
    " with like: it is shown, and never leads"
)

METRICS: Final[dict[str, Callable[[StageRecord], float | None]]] = {
    "validation": lambda record: record.validation,
    "test": lambda record: record.test,
    "test_at_best_validation": lambda record: record.test_at_best_validation,
}
"""Accuracies of the last stage, in percent."""


def build(sweep: SweepResults) -> dict[str, Any]:
    """Returns everything that the report says, as plain JSON values. Equal folders give equal
    dictionaries.

    Accuracies in percent; std is the sample one and null below two seeds. `yes`, `no`, `wasted` and
    the numbers of `rounds` are means over the finished seeds, as `bits` and `stages` are.
    Differences to the baseline are paired and given only at equal bits.

    Raises:
        CorrectnessError: a file that says which test images were right is damaged.
    """
    table = rows(sweep)
    comparisons, results = compare(table, sweep.baseline)
    main = main_comparison(comparisons, results)
    facts = sweep.trials[0].trial.facts if sweep.trials else None
    correct = _right_of(sweep)
    gaps = _to_baseline(table, results, correct)
    lines = [
        _row(
            table,
            index,
            results[index],
            comparisons,
            {name: gaps[name][index] for name in METRICS},
        )
        for index in range(len(table))
    ]
    return {
        "name": sweep.name,
        "budget_bits": (
            comparisons[main].budget_bits
            if main is not None
            else max((row.budget_bits for row in table), default=None)
        ),
        "rows": lines,
        "stage_trainings": stage_trainings(sweep),
        "failed": failed(sweep),
        "dataset": (
            None
            if facts is None
            else {
                key: getattr(facts, key)
                for key in ("name", "num_classes", "train_items", "test_items")
            }
        ),
        "search": {
            "algorithm": sweep.algorithm,
            "num_candidates": sweep.num_candidates,
            "candidates": len(sweep.candidates),
        },
        "metric": metric(sweep),
        "several_labels": any(result.trial.config.task.several_labels for result in sweep.trials),
        "tasks": _tasks(sweep),
        "baseline": sweep.baseline,
        "trials": {
            state: sum(result.state == state for result in sweep.trials)
            for state in ("finished", "failed", "running", "pending")
        },
        "comparisons": [
            _comparison(table, comparison, number == main)
            for number, comparison in enumerate(comparisons)
        ],
        "orderings": orderings(sweep, table, correct),
        "effects": effects(table, results, correct),
        "apart": [
            {"row": index, "reason": result.reason}
            for index, result in enumerate(results)
            if result.comparison is None
        ],
        "break_even": break_even_of(result.trial for result in sweep.trials),
        "rules": {
            "choice": measured(CHOICE_RULE, metric(sweep)),
            "equal_bits_share": EQUAL_BITS,
            "interval": INTERVAL_RULE,
            "told_apart": HOLM_RULE,
            "significance": SIGNIFICANCE,
            "like": LIKE_RULE,
            "ordering": ORDERING_RULE,
            "effect": measured(EFFECT_RULE, metric(sweep)),
        },
        "made_on": made_on(sweep),
        "anchors": anchors(table),
        "damaged": [printable(place) for place in sweep.damaged],
    }


def metric(sweep: SweepResults) -> str:
    """Returns the word for what validation and test are, of the sweep's tasks."""
    found = {record.metric: None for result in sweep.trials for record in result.records}
    return " or ".join(found) or TOP1


def _tasks(sweep: SweepResults) -> list[str]:
    """What tasks say of themselves, each thing once."""
    said = (getattr(result.trial.config.task, "in_words", None) for result in sweep.trials)
    return list(dict.fromkeys(filter(None, said)))


def _right_of(sweep: SweepResults) -> Callable[[TrialResult], Correct | None]:
    """Returns what says which test images the last stage of a trial guessed right."""
    from orchestrator.sweeps.correctness import of_trial

    layout = sweep.layout

    # Files that several comparisons need are read once.
    @lru_cache(maxsize=64)
    def bits(trial: str, stage: int, items: int, sha256: str | None) -> Correct | None:
        return of_trial(layout.trial(trial), stage, items, sha256)

    def correct(result: TrialResult) -> Correct | None:
        last = result.records[-1]
        return bits(
            result.trial.id, last.stage, result.trial.facts.test_items, last.test_correct_sha256
        )

    return correct


def _to_baseline(
    table: list[Row],
    results: list[ComparisonResult],
    correct: Callable[[TrialResult], Correct | None],
) -> dict[str, list[Gap | None]]:
    """Metric -> each row's difference to its baseline, corrected for the number of unlike
    candidates in its comparison that have one.
    """
    measure: dict[str, Callable[[Row, Row], Difference]] = {
        "validation": validation_difference,
        "test": lambda row, base: test_difference(row, base, correct),
        "test_at_best_validation": lambda row, base: difference(
            row, base, METRICS["test_at_best_validation"]
        ),
    }
    differences: dict[str, list[Gap | None]] = {}
    for name, of in measure.items():
        gaps: dict[tuple[str, int], Gap | None] = {}
        for number in {result.comparison for result in results}:
            once: dict[tuple[str, int], Difference] = {}
            for row, result in zip(table, results, strict=True):
                base = result.baseline
                if (
                    result.comparison == number
                    and base is not None
                    and row.candidate.id != table[base].candidate.id
                ):
                    key = row.candidate.id, base
                    once[key] = once[key] if key in once else of(row, table[base])
            gaps |= dict(zip(once, corrected(list(once.values())), strict=True))
        differences[name] = [
            None if result.baseline is None else gaps.get((row.candidate.id, result.baseline))
            for row, result in zip(table, results, strict=True)
        ]
    return differences


def stage_trainings(sweep: SweepResults) -> dict[str, int]:
    """Trainings of the trials drawn so far: in all, distinct by configuration, and how many of the
    finished stages were trained and shared.
    """
    prefixes = [prefix for result in sweep.trials for prefix in stage_prefixes(result.trial)]
    records = [record for result in sweep.trials for record in result.records]
    trained = sum(record.trained for record in records)
    return {
        "total": len(prefixes),
        "distinct": len(set(prefixes)),
        "trained": trained,
        "shared": len(records) - trained,
    }


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
    """What trained the stages, every value that occurs: results from unlike devices or precisions
    are not alike.
    """
    records = [record for result in sweep.trials for record in result.records]
    return {
        name: sorted({getattr(record, name) for record in records} - {""})
        for name in ("device", "precision", "backbone")
    }


def _row(
    table: list[Row],
    index: int,
    result: ComparisonResult,
    comparisons: list[Comparison],
    to_baseline: Mapping[str, Gap | None],
) -> dict[str, Any]:
    row = table[index]
    trials = row.candidate.trials
    schedule = trials[0].trial.schedule if trials else None
    comparison = comparisons[result.comparison] if result.comparison is not None else None
    hours = summarise([people_hours(result) for result in row.finished])
    return {
        "case": row.case,
        "settings": dict(row.candidate.settings),
        "schedule": _schedule(row),
        "start": trials[0].trial.config.start.name if trials else None,
        "n": row.n,
        "bits": row.mean(lambda record: record.bits),
        "test_stages": _stages(row, lambda record: record.test)[0],
        **{name: _mean_std(row, read) for name, read in METRICS.items()},
        **{name: _total(row, name) for name in ("yes", "no", "wasted")},
        "per_seed": [_seed(result) for result in row.finished],
        "named": _named(row),
        "label": row.label,
        "candidate": row.candidate.id,
        "seeds": len(trials),
        "budget_bits": row.budget_bits,
        "label_bits": row.mean(lambda record: record.label_bits),
        "question_bits": row.mean(lambda record: record.question_bits),
        "validation_bits": row.mean(lambda record: record.validation_bits),
        "annotation_hours": hours.mean,
        "metric": trials[0].trial.config.task.metric.name if trials else None,
        "seconds": (
            asdict(task_seconds(trials[0].trial.config.task, trials[0].trial.facts.num_classes))
            if trials
            else None
        ),
        "questions": _total(row, "questions"),
        "skipped": _total(row, "skipped"),
        "unspent": row.mean(lambda record: record.unspent),
        "stage_bits": _stages(row, lambda record: record.bits)[0],
        "stage_std": _stages(row, lambda record: record.test)[1],
        "validation_stages": _stages(row, lambda record: record.validation)[0],
        "rounds": (
            [_round(row, number) for number in range(1, len(schedule.quotas) + 1)]
            if schedule is not None and row.n
            else []
        ),
        "comparable": comparison is not None,
        "reason": result.reason,
        "is_baseline": result.baseline == index,
        "is_best": comparison is not None and comparison.best == index,
        "is_leader": comparison is not None and comparison.leader == index,
        "tied_with_best": comparison is not None and index in comparison.tied,
        "like_with_like": comparison is None or comparison.like(index),
        "also_differs": (
            []
            if comparison is None
            else [asdict(item) for item in comparison.unlike.get(index, ())]
        ),
        "difference": {name: _gap(gap) for name, gap in to_baseline.items()},
        "to_leader": _gap(comparison.to_leader.get(index) if comparison is not None else None),
        "unfinished": [
            _seed(result) | {"state": result.state}
            for result in trials
            if result.state != "finished"
        ],
    }


def _schedule(row: Row) -> dict[str, Any] | None:
    """|D_S| and the questions of each round; where the draws decide them, means over the finished
    seeds or else the expectations, under `drawn`.
    """
    if not row.candidate.trials:
        return None
    trial = row.candidate.trials[0].trial
    planned = {
        "initial_labels": trial.schedule.initial_labels,
        "quotas": list(trial.schedule.quotas),
        "buys": trial.schedule.buys,
    }
    if not trial.config.schedule.choice.bits_decide:
        return planned
    if not row.finished:
        return planned | {"drawn": True}
    labels = summarise([bought(result) for result in row.finished]).mean or 0
    asked = [
        summarise([result.records[number].questions for result in row.finished]).mean or 0
        for number in range(1, len(trial.schedule.quotas) + 1)
    ]
    return {
        "initial_labels": round(labels),
        "quotas": [round(questions) for questions in asked],
        "buys": trial.schedule.buys,
        "drawn": True,
    }


def _mean_std(row: Row, read: Callable[[StageRecord], float | None]) -> dict[str, float | None]:
    summary = row.summary(read)
    return {"mean": summary.mean, "std": summary.std}


def _named(row: Row) -> dict[str, dict[str, float | None]]:
    """Name -> mean and std over the finished seeds of each figure of the last stage's method."""

    def of(name: str) -> dict[str, float | None]:
        return _mean_std(row, lambda record: record.named.get(name))

    names = dict.fromkeys(name for result in row.finished for name in result.records[-1].named)
    return {name: of(name) for name in names}


def _total(row: Row, name: str) -> float | None:
    """Sum over the rounds of a trial, mean over the finished seeds."""
    return summarise(
        [sum(getattr(record, name) for record in result.records) for result in row.finished]
    ).mean


def _stages(
    row: Row, read: Callable[[StageRecord], float | None]
) -> tuple[list[float | None], list[float | None]]:
    """Mean and std after each training over the finished seeds, in order."""
    length = len(row.finished[0].records) if row.finished else 0
    columns = [
        [value for result in row.finished if (value := read(result.records[stage])) is not None]
        for stage in range(length)
    ]
    summaries = [summarise(column) for column in columns]
    return [summary.mean for summary in summaries], [summary.std for summary in summaries]


def _round(row: Row, number: int) -> dict[str, Any]:
    """Round `number`, counted from 1: means over the finished seeds."""
    records = [result.records[number] for result in row.finished]
    accuracy = summarise(
        [record.guess_accuracy for record in records if record.guess_accuracy is not None]
    )
    counts = {
        name: summarise([getattr(record, name) for record in records]).mean
        for name in ("questions", "yes", "no", "skipped", "wasted")
    }
    even = break_even_of(result.trial for result in row.finished)
    # How many labels a question buys for what one full label costs: above 1 it was worth asking.
    worth = {
        name: None if accuracy.mean is None or even is None else accuracy.mean / even[name]
        for name in BREAK_EVEN
    }
    return {
        "round": number,
        **counts,
        "guess_accuracy": {"n": accuracy.n, "mean": accuracy.mean, "std": accuracy.std},
        "worth": worth,
    }


def _seed(result: TrialResult) -> dict[str, Any]:
    last = result.records[-1] if result.records else None
    return {
        "seed": result.trial.seed,
        "trial": result.trial.id,
        "bits": result.bits,
        "validation": last.validation if last else None,
        "test": last.test if last else None,
        "test_stages": [record.test for record in result.records],
        "test_at_best_validation": last.test_at_best_validation if last else None,
        "stage_bits": [record.bits for record in result.records],
        "validation_stages": [record.validation for record in result.records],
        "guess_accuracy": [record.guess_accuracy for record in result.records[1:]],
        **{
            name: sum(getattr(record, name) for record in result.records)
            for name in ("questions", "yes", "no", "skipped", "wasted")
        },
        "unspent": last.unspent if last else None,
        "named": dict(last.named) if last else {},
    }


def _gap(gap: Gap | None) -> dict[str, Any] | None:
    return (
        None
        if gap is None
        else asdict(gap.difference) | {"p_holm": gap.p_holm, "told_apart": gap.told_apart}
    )


def _comparison(table: list[Row], comparison: Comparison, main: bool) -> dict[str, Any]:
    leader = comparison.leader
    return {
        "main": main,
        "budget_bits": comparison.budget_bits,
        "bits": list(comparison.bits),
        "rows": list(comparison.members),
        "best": comparison.best,
        "no_best": comparison.no_best,
        "leader": leader,
        "no_leader": comparison.no_leader,
        "candidates": len(
            {
                table[index].candidate.id
                for index in (*comparison.to_leader, *(() if leader is None else (leader,)))
            }
        ),
        "reference": comparison.reference,
        "not_separated": list(comparison.tied),
    }
