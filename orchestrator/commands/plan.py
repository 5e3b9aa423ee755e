"""The dry run: every trial of a spec with its schedule and price, before anything starts. Loads
none of the libraries that training needs.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from orchestrator.labelling.facts import Facts
from orchestrator.labelling.questions import ClassSets
from orchestrator.reporting.comparison import label
from orchestrator.reporting.statistics import break_even_of
from orchestrator.reporting.words import break_even_line, seconds_in_words
from search_spaces.reading.config import ResourcesConfig, Spec, Trial
from search_spaces.reading.schedule import (
    draws,
    held_out,
    hours_range,
    images_apart,
    questions_of_image,
    task_seconds,
)
from search_spaces.reading.trials import enumerate_trials, stage_prefixes, trial_to_mapping
from trainers.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.reporting.stage_times import StageTimes


MOST_ROWS: Final = 500
"""Candidates in a printed plan; nobody reads more, and a table of them takes its time to lay out.
"""

_MOST_SEEDS: Final = 20


class UnknownTimes(UserError):
    """The sweep that is to show how long a stage trains has trained none."""


def plan(spec: Spec, *, like: str | None = None) -> dict[str, Any]:
    """What the sweep would do, as JSON values.

    Args:
        like: where a sweep is kept by whose recorded times the training of this one is estimated.

    Returns:
        {"name", "trials": [{"id", "cases", "seed", "config", "schedule": {"initial_labels",
        "quotas", "buys"}, "bits", "questions", "annotation_hours", "annotation_hours_least",
        "draws", "beyond_pool", "asked_again"}],
        "stage_trainings": {"total", "distinct"}, "break_even", "training"}. "break_even" is null
        (it differs among the trials, or a yes is no label) or {"per_bit",
        "per_bit_with_negatives", "per_second"}: from what percentage of right guesses on a question
        buys more than a label, the first one of a trial without labels too. "training" is null or
        {"like", "trainings", "hours", "workers", "price_per_hour", "price"}: hours of the distinct
        trainings, each as long as those on record at its place in the schedule were on average,
        and what they cost, workers x hours x price an hour (null without
        resources.price_per_hour). "draws" is null or, of initial_choice
        priced_balanced, {"expected", "low", "high"}: how many labels are bought, and nine times in
        ten, if classes are equally large; schedule, bits, questions and hours are then of the
        expected number. "beyond_pool" is how many of the questions can never be asked, for want of
        images; "asked_again" how many of the others must be about an image that was asked about
        in an earlier round. A search that learns from results has "trials": null, numbers null,
        and "search": {"algorithm", "num_candidates", "seeds"}.

    Raises:
        UnknownTimes: no training is on record in `like`.
    """
    times = None if like is None else _times(like)
    trials = enumerate_trials(spec)
    if trials is None:
        search = {
            "algorithm": spec.search.algorithm.name,
            "num_candidates": spec.search.num_candidates,
            "seeds": list(spec.seeds),
        }
        return {
            "name": spec.name,
            "trials": None,
            "tasks": [],
            "search": search,
            "stage_trainings": {"total": None, "distinct": None},
            "break_even": None,
            "training": None,
        }
    rows: list[dict[str, Any]] = []
    total = 0
    places: dict[str, int] = {}
    shared: dict[str, Any] = {}
    for trial in trials:
        if trial.seed == spec.seeds[0]:
            # What a candidate's seeds have in common is worked out once: seeds share no stage with
            # each other.
            prefixes = stage_prefixes(trial)
            total += len(prefixes)
            places |= {prefix: place for place, prefix in enumerate(prefixes)}
            mapping = trial_to_mapping(trial)
            shared = {key: mapping[key] for key in ("cases", "config", "bits")}
            shared["settings"] = dict(trial.settings)
            shared["schedule"] = mapping["schedule"] | {"buys": trial.schedule.buys}
            priced_draws = draws(
                trial.config.schedule, trial.facts, held_out(trial.config.dataset, trial.facts)
            )
            shared |= {
                "questions": trial.questions,
                "annotation_hours": trial.annotation_hours,
                "annotation_hours_least": _least_hours(trial),
                "seconds": asdict(task_seconds(trial.config.task, trial.facts.num_classes)),
                "draws": None if priced_draws is None else asdict(priced_draws),
                "beyond_pool": _beyond_pool(trial),
                "asked_again": _asked_again(trial),
            }
        rows.append({"id": trial.id, "seed": trial.seed} | shared)
    seeds = len(spec.seeds)
    said = (getattr(trial.config.task, "in_words", None) for trial in trials)
    return {
        "name": spec.name,
        "trials": rows,
        "tasks": list(dict.fromkeys(filter(None, said))),
        "stage_trainings": {"total": total * seeds, "distinct": len(places) * seeds},
        "break_even": break_even_of(trials),
        "training": None
        if times is None
        else _training(like, times, times.of(places.values()) * seeds, spec.resources),
    }


def _least_hours(trial: Trial) -> float:
    labels, classes = trial.schedule.labels, trial.facts.num_classes
    return hours_range(trial.config.task, classes, labels, trial.questions)[0]


def _times(location: str) -> StageTimes:
    from orchestrator.reporting.results import load
    from orchestrator.reporting.stage_times import stage_times
    from orchestrator.sweeps.layout import SweepLayout

    times = stage_times(load(SweepLayout.at(location)))
    if times is None:
        raise UnknownTimes(
            f"--like {location}: no stage has been trained there, so it does not show how long one"
            " takes. Run a little of it: orchestrate sweep SPEC --set 'seeds=[0]' --out DIR"
        )
    return times


def _training(
    like: str | None, times: StageTimes, seconds: float, resources: ResourcesConfig
) -> dict[str, Any]:
    hours, each = seconds / 3600, resources.price_per_hour
    return {
        "like": like,
        "trainings": times.trainings,
        "hours": hours,
        "workers": resources.workers,
        "price_per_hour": each,
        "price": None if each is None else hours * resources.workers * each,
    }


def _beyond_pool(trial: Trial) -> int:
    """Returns how many questions of a trial can never be asked: a round asks about an image at most
    once, or as often as the task allows, and at most about every image that is open. Where an image
    has several questions, each is answered once in the whole trial.
    """
    if trial.schedule.buys == "labels":
        return 0
    most, left, beyond = _askable(trial), _answers(trial), 0
    for quota in trial.schedule.quotas:
        asked = min(quota, most, left)
        beyond += quota - asked
        left -= asked
    return beyond


def _asked_again(trial: Trial) -> int:
    """Returns how many questions of a trial, of those that can be asked, are more than there are
    images to ask about. Where an image has several questions none is asked again.
    """
    if trial.schedule.buys == "labels" or trial.config.task.several_questions:
        return 0
    return max(0, trial.questions - _beyond_pool(trial) - _askable(trial))


def _answers(trial: Trial) -> int:
    """Returns how many answers a trial can get, whatever its rounds."""
    if not trial.config.task.several_questions:
        return trial.questions
    classes, images = trial.facts.num_classes, _open_images(trial)
    # An image that has a label and is open has at least the one of which it is known.
    known = trial.schedule.initial_labels if _open_with_label(trial.config.task, classes) else 0
    return images * classes - known


def _askable(trial: Trial) -> int:
    """Returns how many questions a round may have before anything is answered."""
    return _open_images(trial) * questions_of_image(trial.config.task, trial.facts.num_classes)


def _open_images(trial: Trial) -> int:
    """Returns about how many images something may be asked before anything is answered."""
    facts, dataset, task = trial.facts, trial.config.dataset, trial.config.task
    images = facts.train_items - images_apart(dataset, facts)
    if not _open_with_label(task, facts.num_classes):
        images -= trial.schedule.initial_labels
    elif dataset.validation.source == "initial_labels":
        images -= dataset.validation.per_class * facts.num_classes
    return images


def _open_with_label(task: Any, num_classes: int) -> bool:
    """Whether something may be asked about an image that has a label."""
    labelled = task.know(
        Facts.none(1, num_classes), np.zeros(1, np.int64), ClassSets.singles(np.zeros(1, np.int32))
    )
    return bool(task.open(labelled)[0])


def print_plan(planned: dict[str, Any], console: Console | None = None) -> None:
    """Prints a plan as a table, one row a candidate with its seeds."""
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    console = console or RichConsole()
    if planned["trials"] is None:
        search = planned["search"]
        console.print(
            f"{planned['name']}: {search['algorithm']} draws {search['num_candidates']} candidates"
            f" as results come in, each with seeds {_numbers(search['seeds'])}:"
            f" {search['num_candidates'] * len(search['seeds'])} trials.",
            highlight=False,
        )
        return
    table = Table(title=f"{planned['name']}: {len(planned['trials'])} trials", title_justify="left")
    table.add_column("case", overflow="fold")
    for heading in ("|D_S|", "rounds", "questions", "bits", "hours"):
        # A number is never broken; a list of rounds may be.
        table.add_column(heading, justify="right", overflow="fold", no_wrap=heading != "rounds")
    table.add_column("seeds", overflow="fold")
    candidates = _by_candidate(planned["trials"])
    for number, rows in enumerate(candidates[:MOST_ROWS], start=1):
        first = rows[0]
        quotas = " + ".join(f"{quota:,}" for quota in first["schedule"]["quotas"]) or "none"
        if first["schedule"]["buys"] == "labels":
            quotas += " labels"
        labels, drawn = f"{first['schedule']['initial_labels']:,}", first["draws"]
        if drawn is not None:
            # What is not decided before the draws is marked.
            labels, quotas = (
                f"~{labels} ({drawn['low']:,} to {drawn['high']:,})",
                f"~{quotas.replace(' + ', ' + ~')}",
            )
        cells = [
            (
                label(" = ".join(first["cases"]) or None, first["settings"], number)
                if first["settings"]
                else "\n".join(first["cases"]) or "-"
            ),
            labels,
            quotas,
            f"{'' if drawn is None else '~'}{first['questions']:,}",
        ]
        cells += [
            f"{first['bits']:,.2f}",
            _hours(first),
            _numbers([row["seed"] for row in rows]),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    if len(candidates) > MOST_ROWS:
        console.print(
            f"{len(candidates) - MOST_ROWS:,} more candidates are not shown; --json lists every"
            " trial.",
            highlight=False,
        )
    if any(row["draws"] is not None for row in planned["trials"]):
        console.print(
            "~: expected. initial_choice: priced_balanced pays for every blind draw until each"
            " class has its labels; in brackets where nine draws in ten end, if classes are equally"
            " large. The rounds share what is left of the budget; a trial whose draws it does not"
            " hold fails.",
            highlight=False,
        )
    _print_scarcity(candidates, console)
    trainings = planned["stage_trainings"]
    console.print(
        f"{trainings['total']} stage trainings, {trainings['distinct']} of them distinct: trials"
        " that share a beginning share its training.",
        highlight=False,
    )
    for line in planned["tasks"]:
        console.print(line, highlight=False)
    if planned["training"] is not None:
        console.print(_training_in_words(planned["training"]), highlight=False, markup=False)
    if planned["break_even"] is not None and any(row["questions"] for row in planned["trials"]):
        unlabelled = any(not row["schedule"]["initial_labels"] for row in planned["trials"])
        console.print(
            break_even_line(planned["break_even"])
            + " That holds from the first question on, of guesses by prior scores too; how often"
            " those are right, the answers of round 1 tell." * unlabelled,
            highlight=False,
        )
    console.print(
        f"Hours are of annotation in one trial, at {seconds_in_words(planned['trials'])}."
        + _of_sets(planned),
        highlight=False,
    )


def _print_scarcity(candidates: list[list[dict[str, Any]]], console: Console) -> None:
    """Says which candidates have more questions than images to ask about."""
    beyond = [rows[0] for rows in candidates if rows[0]["beyond_pool"]]
    if beyond:
        first = beyond[0]
        several = first["config"]["task"].get("per_image") is not None
        most = (
            "questions than task.per_image allows in a round, or than there are pairs of which"
            " nothing is known"
            if several
            else "in a round than there are images without a label"
        )
        console.print(
            f"{len(beyond)} of these {'asks' if len(beyond) == 1 else 'ask'} more {most}:"
            f" {first['beyond_pool']:,} of the"
            f" {first['questions']:,} questions of"
            f" {', '.join(first['cases']) or 'the first of them'} can never be asked, and their"
            " bits stay unspent. Lower the budget, or split it into more rounds"
            + (", or raise task.per_image." if several else "."),
            highlight=False,
            markup=False,
        )
    again = [rows[0] for rows in candidates if rows[0]["asked_again"]]
    if again:
        first = again[0]
        console.print(
            f"{len(again)} of these {'asks' if len(again) == 1 else 'ask'} more questions than"
            f" there are images without a label: at least {first['asked_again']:,} of the"
            f" {first['questions']:,} of {', '.join(first['cases']) or 'the first of them'} are"
            " about an image that was answered no before. A late round may find too few such"
            " images; what it cannot ask goes to the next, and after the last stays unspent.",
            highlight=False,
            markup=False,
        )


def _of_sets(planned: dict[str, Any]) -> str:
    if all(row["annotation_hours_least"] == row["annotation_hours"] for row in planned["trials"]):
        return ""
    return (
        " A range: from questions about one class to those about the most, at the seconds of the"
        " task; a report has the hours of what was asked."
    )


def _hours(row: dict[str, Any]) -> str:
    least, most = (f"{row[key]:,.2f}" for key in ("annotation_hours_least", "annotation_hours"))
    return most if row["annotation_hours_least"] == row["annotation_hours"] else f"{least} - {most}"


def _training_in_words(training: dict[str, Any]) -> str:
    from orchestrator.reporting.status import duration

    said = (
        f"{duration(3600 * training['hours'])} of training in all, by"
        f" {training['trainings']} stage training(s) on record in {training['like']}"
    )
    if training["price"] is None:
        return f"{said}; what a worker costs is not said (resources.price_per_hour)."
    return (
        f"{said}: x {training['workers']} worker(s) x {training['price_per_hour']:g} an hour"
        f" (resources.price_per_hour) = {training['price']:,.2f}. The head, starts of machines and"
        " their idle time come to it."
    )


def _by_candidate(trials: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: list[list[dict[str, Any]]] = []
    for row in trials:
        # A candidate's seeds follow one another and differ in nothing else.
        if groups and all(
            groups[-1][0][key] == row[key] for key in ("cases", "config", "schedule")
        ):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _numbers(values: list[int]) -> str:
    if len(values) <= _MOST_SEEDS:
        return ", ".join(str(value) for value in values)
    if values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return f"{_numbers(values[:_MOST_SEEDS])}, ... ({len(values)})"
