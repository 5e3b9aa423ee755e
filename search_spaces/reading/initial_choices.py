"""The values of schedule.initial_choice, and what follows from each before anything is drawn.

Beside those of this program any query strategy that starts cold is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

InitialChoiceName = Literal["random", "first", "uniform", "priced_balanced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialChoice:
    """What follows from how D_S is chosen."""

    of_each_class: bool
    """Whether D_S has `initial_labels_per_class` of every class; else it may lack some."""
    knows_classes: bool = False
    """Whether who finds the images must know of which class each is."""
    bits_decide: bool = False
    """Whether the draws say how many labels are bought, each for its bits: then the rounds share
    what is left, and a plan has expectations.
    """
    reads_features: bool = False
    """Whether who finds the images must see their feature vectors."""


INITIAL_CHOICES: Final[Mapping[InitialChoiceName, InitialChoice]] = {
    "random": InitialChoice(of_each_class=True, knows_classes=True),
    "first": InitialChoice(of_each_class=True, knows_classes=True),
    "uniform": InitialChoice(of_each_class=False),
    "priced_balanced": InitialChoice(of_each_class=True, bits_decide=True),
}
"""By name. What each draws is orchestrator.labelling.first_labels.CHOICES."""

BY_STRATEGY: Final = InitialChoice(of_each_class=False, reads_features=True)
"""What follows where a query strategy chooses."""


def described(name: str) -> InitialChoice:
    """Returns what follows from a value: of a name that is not in the table, a strategy's."""
    return cast(Mapping[str, InitialChoice], INITIAL_CHOICES).get(name, BY_STRATEGY)


@dataclass(frozen=True, slots=True)
class OrStrategy:
    """Beside the type of a setting: the names of query strategies that start cold are values
    too.
    """

    def fits(self, strategy: Any) -> bool:
        """Returns whether a strategy, or its class, is one of them."""
        return bool(getattr(strategy, "starts_cold", False))
