"""In what rows differ beside what they are compared for, and which of these differences make rows
at equal bits not like with like.

A table at equal bits compares schedules: what is labelled and asked (`budget`, `schedule`,
`query`). Whatever else differs is named beside the row. Of that, what buys compute (the method, its
epochs, the network) or information (the data, the validation images, who answers, whether stage 0
guesses by prior scores) makes a row not like with like: bits are no longer all that it spent. Nor
is a row that is judged by another metric. The rest (loss weights, rates, the batch, precision,
device) is named and left to the reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.reporting.results import CandidateResult
from search_spaces.reading.assemble import config_to_mapping, flatten

_COMPARED: Final = ("budget.", "schedule.", "query.")
_NOT_LIKE: Final = (
    "method.name",
    "start.name",
    "method.epochs",
    "method.backbone",
    "dataset.",
    "oracle.",
    "metric",
)
_SAME_DATA: Final = ("dataset.path",)
"""Where the data lies; what they are, their sizes and fingerprint say."""


@dataclass(frozen=True, slots=True)
class Unlike:
    """One setting in which a row differs from the row that it is compared with."""

    key: str
    theirs: Any
    """Of the other row."""
    ours: Any
    like: bool
    """Whether rows that differ in it are still like with like."""


def terms(candidate: CandidateResult) -> dict[str, Any]:
    """Key -> value of everything that a candidate's stages read and that is not compared; as
    recorded by the stages where they recorded it.
    """
    if not candidate.trials:
        return {}
    trial = candidate.trials[0].trial
    values = {
        key: value
        for key, value in flatten(config_to_mapping(trial.config)).items()
        if not key.startswith(_COMPARED) and key not in _SAME_DATA
    }
    facts = trial.facts
    values["metric"] = trial.config.task.metric.name
    values |= {
        "dataset.num_classes": facts.num_classes,
        "dataset.train_items": facts.train_items,
        "dataset.test_items": facts.test_items,
    }
    records = [record for result in candidate.trials for record in result.records]
    for key, name in (
        ("method.backbone", "backbone"),
        ("method.precision", "precision"),
        ("device", "device"),
    ):
        recorded = sorted({getattr(record, name) for record in records} - {""})
        if recorded:
            values[key] = "/".join(recorded)
    return values


def unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[Unlike, ...]:
    """What differs between the terms of two rows, in the order of the settings. What one of them
    has not recorded is no difference.
    """
    return tuple(
        Unlike(key, theirs[key], value, not key.startswith(_NOT_LIKE))
        for key, value in ours.items()
        if key in theirs and value != theirs[key]
    )
