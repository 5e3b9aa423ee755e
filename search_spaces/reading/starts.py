"""Checks of how a trial starts: what makes the guesses of stage 0, and whether there must be labels
before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search_spaces.reading.config import TrialConfig
from search_spaces.reading.errors import SpecError, show

_ZERO = "schedule.initial_labels_per_class"


def check_start(config: TrialConfig, *, prior: bool, able: Sequence[str]) -> None:
    """Checks that stage 0 can guess by what there is before any question, and that later stages can
    do with what it leaves.

    Args:
        prior: whether the data has prior scores.
        able: names of methods that train without a label.

    Raises:
        SpecError: it cannot. Without a place: see SpecError.located.
    """
    first, method, rounds = config.method_of(0), config.method, len(config.schedule.split)
    labels = config.schedule.initial_labels_per_class
    if not labels and getattr(first, "without_labels", None) != "guesses":
        raise _nothing_to_guess_by(config, prior=prior)
    for section, one in (("start", first), ("method", method)):
        if getattr(one, "needs_prior", False) and not prior:
            raise SpecError(
                f"{section} {one.name} guesses by prior scores, and {_data(config)} has none"
                if labels
                else f"initial_labels_per_class is 0 and {_data(config)} has no array `scores`,"
                f" by which {section} {one.name} guesses",
                keys=(*(() if labels else (_ZERO,)), f"{section}.name", "dataset.path"),
                hint=_SCORES if labels else f"{_SCORES}, or buy at least 1 label of each class",
            )
    if not labels and rounds and not getattr(method, "without_labels", None):
        raise SpecError(
            f"initial_labels_per_class is 0, and method {method.name} cannot train without a"
            " label: after a round there may still be none of some class, or of any",
            keys=(_ZERO, "method.name"),
            hint=f"write at least 1, or a method that can: {', '.join(able)}",
        )
    if first is method or not rounds:
        return
    reads = {"model", "state"} & set(method.stage(1, rounds, has_negatives=True).reads)
    if reads:
        raise SpecError(
            f"method {method.name} continues in stage 1 what stage 0 trained, and start"
            f" {config.start.name} trains none of it",
            keys=("start.name", "method.init", "method.name"),
            hint="let each stage begin afresh (of mean_teacher: init: scratch), or remove start",
        )


_SCORES = "add scores [N, C] (and scores_test [T, C] beside x_test) to the file"


def _nothing_to_guess_by(config: TrialConfig, *, prior: bool) -> SpecError:
    if prior:
        return SpecError(
            f"initial_labels_per_class is 0, and {config.method_of(0).name} guesses nothing before"
            " it has learned from labels",
            keys=(_ZERO, "start.name"),
            hint="write start: {name: prior}, which guesses by the scores of the data, or at"
            " least 1",
        )
    return SpecError(
        f"initial_labels_per_class is 0 and {_data(config)} has no array `scores` by which stage 0"
        " could guess",
        keys=(_ZERO, "dataset.path"),
        hint=f"{_SCORES} and write start: {{name: prior}}, or buy at least 1 label of each class",
    )


def _data(config: TrialConfig) -> str:
    source: Any = config.dataset.source
    path = getattr(source, "path", None)
    return f"dataset.name={source.name}" if path is None else f"dataset.path={show(path)}"
