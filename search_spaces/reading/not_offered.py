"""Words of other tools and earlier versions for what this one does not do, and why."""

from __future__ import annotations

from typing import Final

NOT_OFFERED: Final = {
    **dict.fromkeys(
        ("pbt", "pb2", "population_based", "population_based_training"),
        "population-based training is not offered: it copies checkpoints between trials, so"
        " reported bits would be wrong",
    ),
    **dict.fromkeys(
        (
            "early_stopping",
            "early_terminate",
            "scheduler",
            "asha",
            "hyperband",
            "bohb",
            "median",
            "pruner",
        ),
        "early stopping is not offered: every candidate runs its whole schedule",
    ),
    **dict.fromkeys(
        ("nsga2", "nsgaii", "nsga3", "nsgaiii", "motpe", "moead", "multi_objective"),
        "a search for several objectives is not offered: candidates are compared by validation"
        " accuracy alone",
    ),
    "preset": (
        "presets are files that a spec extends: write extends: presets/default_DATASET.yaml, or"
        " presets/authors_DATASET.yaml, at its top, where DATASET is cifar100, cifar10,"
        " mini_imagenet or imagenet"
    ),
}
