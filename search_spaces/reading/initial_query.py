"""The query strategy that schedule.initial_choice may name, and what it asks of a spec."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from search_spaces.reading.config import TrialConfig
from search_spaces.reading.errors import SpecError
from search_spaces.reading.initial_choices import INITIAL_CHOICES, OrStrategy
from search_spaces.reading.settings import Keys


def initial_query(name: str, keys: Keys) -> Any:
    """Returns the query strategy of that name, as it is by default, to choose the initial labels;
    None where the name is no strategy's.

    Raises:
        SpecError: it cannot be loaded, needs a model, or has no defaults. With its key.
    """
    if name in INITIAL_CHOICES:
        return None
    key = "schedule.initial_choice"
    try:
        strategy = keys.catalogue.load("query", name)
    except SpecError as error:
        raise SpecError(error.problem, key=key, value=name, hint=error.hint) from error
    if not OrStrategy().fits(strategy):
        raise SpecError(
            f"strategy {name} chooses by what a model says, and before the initial labels there is"
            " none",
            key=key,
            value=name,
            hint="write uniform, or a strategy that starts cold, as typiclust",
        )
    if needed := [one.name for one in fields(strategy) if one.default is MISSING]:
        raise SpecError(
            f"strategy {name} has no default of {', '.join(needed)}, and as a choice of initial"
            " labels it takes its defaults",
            key=key,
            value=name,
            hint="write another",
        )
    return strategy()


def check_features(config: TrialConfig, facts: Any) -> None:
    """Raises SpecError where the initial labels are chosen by features and the data has none."""
    if config.schedule.choice.reads_features and facts.kind != "features":
        raise SpecError(
            f"initial_choice: {config.schedule.initial_choice} looks at feature vectors, and"
            f" {facts.name} holds {facts.kind}",
            keys=("schedule.initial_choice", "dataset.name"),
            hint="write initial_choice: uniform, or dataset: {name: features, path: FILE.npz} with"
            " vectors of the images",
        )
