"""The values of schedule.initial_choice, and what follows from each before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

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


INITIAL_CHOICES: Final[Mapping[InitialChoiceName, InitialChoice]] = {
    "random": InitialChoice(of_each_class=True, knows_classes=True),
    "first": InitialChoice(of_each_class=True, knows_classes=True),
    "uniform": InitialChoice(of_each_class=False),
    "priced_balanced": InitialChoice(of_each_class=True, bits_decide=True),
}
"""By name. What each draws is orchestrator.labelling.first_labels.CHOICES."""
