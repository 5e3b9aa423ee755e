"""Names that a spec may use and that are implemented elsewhere; kept here so that a spec is checked without loading those parts."""

from __future__ import annotations

from typing import Final

DATASET_KINDS: Final = {
    **dict.fromkeys(("digits", "cifar10", "cifar100", "mini_imagenet", "imagenet", "folder"), "images"),
    "features": "features",
}
"""Data set -> the kind of its items."""

DATASETS: Final = tuple(DATASET_KINDS)

STRATEGIES: Final = ("random", "easy", "hard", "margin", "entropy", "class_balanced", "mixed")
"""Query strategies."""

IMAGE_BACKBONES: Final = ("small_cnn", "small_cnn_gn", "resnet18", "resnet50", "shake_shake_26", "wide_resnet_28_2", "vgg16")
FEATURE_BACKBONES: Final = ("mlp", "linear")
BACKBONES: Final = ("auto", *IMAGE_BACKBONES, *FEATURE_BACKBONES)
BACKBONES_FOR: Final = {"images": IMAGE_BACKBONES, "features": FEATURE_BACKBONES}
"""Kind of data -> backbones that take it."""

PRESET_NAMES: Final = ("default", "authors")
"""Sets of published settings (search_spaces.reading.presets)."""

ALGORITHMS: Final = ("grid", "random", "tpe")
ADAPTIVE: Final = ("tpe",)
"""Search algorithms whose next candidate depends on the results of earlier ones."""

NOT_OFFERED: Final = {
    **dict.fromkeys(
        ("pbt", "pb2", "population_based", "population_based_training"),
        "population-based training is not offered: a copied checkpoint without its ledger would lie about its bits",
    ),
    **dict.fromkeys(
        ("early_stopping", "early_terminate", "scheduler", "asha", "hyperband", "bohb", "median", "pruner"),
        "early stopping is not offered: every candidate runs its whole schedule",
    ),
    **dict.fromkeys(
        ("nsga2", "nsgaii", "nsga3", "nsgaiii", "motpe", "moead", "multi_objective"),
        "a search for several objectives is not offered: candidates are told apart by validation accuracy alone",
    ),
}
"""Words of other tools for what this one does not do, and why."""
