"""Where a sweep stands: trials against stages, bits spent, validation accuracy, and the time to
go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.reporting import words as write
from orchestrator.reporting.comparison import label
from orchestrator.reporting.report import failed, stage_trainings
from orchestrator.reporting.results import SweepResults, TrialResult, printable
from orchestrator.reporting.stage_times import stage_times
from orchestrator.sweeps.stage_records import TOP1
from search_spaces.reading.config import ResourcesConfig
from search_spaces.reading.trials import stage_prefixes

MOST_LISTED: Final = 40
"""Trials up to which each has a line on a terminal."""

_STYLES = {"finished": "green", "failed": "red", "running": "cyan", "pending": "dim"}


def as_dict(sweep: SweepResults, resources: ResourcesConfig) -> dict[str, Any]:
    """The state of every trial as plain JSON values. Test accuracies are not in it: they are for
    the report, when nothing is to be decided any more.
    """
    left = remaining(sweep, resources)
    return {
        "name": sweep.name,
        "ended": sweep.ended,
        "candidates": {"drawn": len(sweep.candidates), "of": sweep.num_candidates},
        "trials": [
            _trial(result, label(" = ".join(candidate.cases) or None, candidate.settings, number))
            for number, candidate in enumerate(sweep.candidates, start=1)
            for result in candidate.trials
        ],
        "counts": {
            state: sum(result.state == state for result in sweep.trials)
            for state in ("finished", "failed", "running", "pending")
        },
        "stage_trainings": stage_trainings(sweep) | {"left": left},
        "seconds_to_go": seconds_to_go(sweep, resources),
        "price": None if (paid := _priced(sweep, resources)) is None else asdict(paid),
        "failed": failed(sweep),
        "damaged": list(sweep.damaged),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What the training on record comes to."""

    hours: float
    """In training, summed over stages; what broken attempts lost is not in it."""
    workers: int
    per_hour: float
    """Price of one worker."""
    price: float


def _priced(sweep: SweepResults, resources: ResourcesConfig) -> Price | None:
    if resources.price_per_hour is None:
        return None
    seconds = sum(
        record.seconds for result in sweep.trials for record in result.records if record.trained
    )
    return Price(
        hours=seconds / 3600,
        workers=resources.workers,
        per_hour=resources.price_per_hour,
        price=seconds / 3600 * resources.workers * resources.price_per_hour,
    )


def price(sweep: SweepResults, resources: ResourcesConfig) -> str | None:
    """Returns what the training on record comes to, in words; None where no price is known."""
    paid = _priced(sweep, resources)
    if paid is None:
        return None
    return (
        f"trained for {paid.hours:,.2f} hours x {paid.workers} worker(s) x {paid.per_hour:g} an"
        f" hour (resources.price_per_hour) = {paid.price:,.2f}"
    )


def remaining(sweep: SweepResults, resources: ResourcesConfig) -> int:
    """Stage trainings still to be done for the candidates drawn so far; shared ones once, those of
    failed trials not at all.
    """
    return len(_to_train(sweep, resources))


def seconds_to_go(sweep: SweepResults, resources: ResourcesConfig) -> float | None:
    """An estimate for the candidates drawn so far; None before the first training has shown how
    long one takes.

    Each training left counts the mean seconds of the trained ones at its place in the schedule.
    They are spread over what may run at once, but the stages of a trial follow each other, so the
    longest trial bounds it from below.
    """
    times = stage_times(sweep)
    if times is None:
        return None if _to_train(sweep, resources) else 0.0
    work = times.of(_to_train(sweep, resources).values())
    chains = [times.of(range(len(result.records), result.stages)) for result in _open(sweep)]
    return max([work / resources.max_concurrent, *chains])


def _open(sweep: SweepResults) -> list[TrialResult]:
    return [result for result in sweep.trials if result.state in ("running", "pending")]


def _to_train(sweep: SweepResults, resources: ResourcesConfig) -> dict[str, int]:
    """Trainings left, each with its place in the schedule."""

    def keys(result: TrialResult) -> Sequence[str]:
        prefixes = stage_prefixes(result.trial)
        return (
            prefixes if resources.share_stages else [f"{result.trial.id}:{key}" for key in prefixes]
        )

    done = {key for result in sweep.trials for key in keys(result)[: len(result.records)]}
    return {
        key: stage
        for result in _open(sweep)
        for stage, key in enumerate(keys(result))
        if key not in done
    }


def _trial(result: TrialResult, name: str) -> dict[str, Any]:
    trial = result.trial
    return {
        "id": trial.id,
        "label": name,
        "cases": list(trial.cases),
        "settings": dict(trial.settings),
        "seed": trial.seed,
        "state": result.state,
        "bits": result.bits,
        "budget_bits": trial.budget_bits,
        "stages": [
            {
                "stage": record.stage,
                "bits": record.bits,
                "validation": record.validation,
                "guess_accuracy": record.guess_accuracy,
                "yes": record.yes,
                "no": record.no,
                "seconds": record.seconds,
                "trained": record.trained,
            }
            for record in result.records
        ],
        "stages_in_all": result.stages,
        "error": (
            None if result.failure is None or result.state != "failed" else result.failure.message
        ),
    }


def render(sweep: SweepResults, resources: ResourcesConfig) -> RenderableType:
    """The same for a terminal: a line per trial, its validation accuracy after each training. Of
    many trials those that run or have failed.
    """
    facts = as_dict(sweep, resources)
    listed = facts["trials"]
    if len(listed) > MOST_LISTED:
        listed = [trial for trial in listed if trial["state"] in ("running", "failed")]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("trial", overflow="fold")
    table.add_column("seed", justify="right")
    table.add_column("state")
    table.add_column("bits", justify="right", no_wrap=True)
    metrics = dict.fromkeys(result.trial.config.task.metric.name for result in sweep.trials)
    judged = "" if [*metrics] in ([], [TOP1]) else f" ({' or '.join(metrics)})"
    table.add_column(f"validation{printable(judged)} after each training", overflow="fold")
    for trial in listed[:MOST_LISTED]:
        done, of = len(trial["stages"]), trial["stages_in_all"]
        state = (
            trial["state"]
            if trial["state"] in ("finished", "pending")
            else f"{trial['state']} {done}/{of}"
        )
        steps = [write.number(stage["validation"]) for stage in trial["stages"]] + ["·"] * (
            of - done
        )
        bits = f"{write.number(trial['bits'])} / {write.number(trial['budget_bits'])}"
        table.add_row(
            Text(trial["label"]),
            str(trial["seed"]),
            Text(state, style=_STYLES[trial["state"]]),
            bits,
            " → ".join(steps),
        )
    parts: list[RenderableType] = [Text(printable(facts["name"]), style="bold")]
    if listed:
        parts.append(table)
    hidden = len(facts["trials"]) - len(listed[:MOST_LISTED])
    if hidden:
        parts.append(Text(f"{hidden} more trials are not listed; --json has all", style="dim"))
    parts.append(Text(_summary(facts)))
    paid = price(sweep, resources)
    parts += [] if paid is None else [Text(paid)]
    parts += [Text(printable(write.failure_line(item)), style="red") for item in facts["failed"]]
    parts += [Text(printable(problem), style="red") for problem in facts["damaged"]]
    return Group(*parts)


def _summary(facts: dict[str, Any]) -> str:
    counts, trainings = facts["counts"], facts["stage_trainings"]
    text = (
        ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        or "no trial yet"
    )
    drawn = facts["candidates"]
    if drawn["of"] is not None:
        text += f"; {drawn['drawn']} of {drawn['of']} candidates drawn"
    text += (
        f"; stage trainings: {trainings['trained']} trained, {trainings['shared']} shared,"
        f" {trainings['left']} left"
    )
    if facts["ended"]:
        return text + "."
    return f"{text}; {duration(facts['seconds_to_go'])} to go."


def duration(seconds: float | None) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`: as exact as an estimate deserves."""
    if seconds is None:
        return "unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
