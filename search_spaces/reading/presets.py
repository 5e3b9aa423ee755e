"""Published settings by data set: a preset supplies what a spec leaves unwritten, and nothing else.

`authors` follows the published code of Hu et al. 2020 (arXiv:2009.06168) and, where that is silent,
the settings of Tarvainen & Valpola 2017 (arXiv:1703.01780) that it says it follows. `default` is
the same training without what we hold for accidents: a teacher that starts as random weights,
guesses of classes already refused, initial labels that no seed changes, and labelled shares that
fit one schedule only. What neither has is in docs/presets.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from search_spaces.reading.errors import SpecError

PRESET_NAMES: Final = ("default", "authors")

_CIFAR: Final = {
    "method.backbone": "shake_shake_26",
    "method.epochs": 180,
    "method.batch_size": 512,
    "method.learning_rate": 0.2,  # 0.05 on each of four GPUs
    "method.momentum": 0.9,
    "method.nesterov": True,
    "method.weight_decay": 2e-4,
    "method.cosine_horizon": 210 / 180,
    "method.consistency": "mse",
    "method.consistency_weight": 1000.0,
    "method.consistency_rampup_epochs": 5.0,
    "method.logit_distance_weight": 0.01,
    "method.ema_decay": 0.97,
    "method.nls_positive": "soft",
    "method.init": "scratch",
}
"""CIFAR-100 in the published code."""

_BY_DATASET: Final[dict[str, dict[str, Any]]] = {
    "cifar100": _CIFAR,
    # The 1,000-label recipe of Tarvainen & Valpola, which the one above is with W scaled by the
    # number of classes.
    "cifar10": _CIFAR | {"method.consistency_weight": 100.0},
    # Batch size and learning rate are unpublished: ours.
    "mini_imagenet": (
        _CIFAR
        | {
            "method.backbone": "resnet50",
            "method.consistency_weight": 100.0,
            "method.batch_size": 256,
            "method.learning_rate": 0.1,
        }
    ),
    # Hu et al. give W, the loss, the epochs and the eight GPUs; the rest is Tarvainen & Valpola's
    # ImageNet run, whose batch may not be theirs.
    "imagenet": (
        _CIFAR
        | {
            "method.backbone": "resnet50",
            "method.epochs": 60,
            "method.batch_size": 320,  # 40 on each of eight GPUs, half of them labelled
            "method.labelled_share": 0.5,
            "method.learning_rate": 0.2,  # 0.025 on each of eight GPUs
            "method.warmup_epochs": 2.0,
            "method.warmup_start_rate": 0.1,
            "method.cosine_horizon": 75 / 60,
            "method.weight_decay": 5e-5,
            "method.consistency_weight": 100.0,
            "method.ema_decay": 0.9997,
        }
    ),
}

_AUTHORS: Final = {
    "method.teacher_init": "random",
    "method.precision": "fp32",
    "schedule.initial_choice": "first",
    "query.requery": "pool",
    "query.mask_refused": False,
}
_DEFAULT: Final = {
    "method.teacher_init": "student",
    "method.precision": "bf16",
    "schedule.initial_choice": "random",
    "query.requery": "pool",
    "query.mask_refused": True,
}

PRESETS: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    (preset, dataset): settings | (_AUTHORS if preset == "authors" else _DEFAULT)
    for preset in PRESET_NAMES
    for dataset, settings in _BY_DATASET.items()
} | {("authors", "cifar100"): _CIFAR | _AUTHORS | {"method.labelled_per_batch": (50, 200, 320)}}
"""(preset, data set) -> key path -> value."""

SUPPLIED: Final = frozenset(key for settings in PRESETS.values() for key in settings)
"""Every key that some preset supplies."""


def preset_values(preset: str | None, dataset: str | None) -> Mapping[str, Any]:
    """What the preset supplies for this data set; nothing where there is no preset.

    Raises:
        SpecError: the preset has no settings for this data set. Without a place: see
            SpecError.located.
    """
    if preset is None or dataset is None:
        return {}
    if (preset, dataset) not in PRESETS:
        problem = f"there are no published settings for the data set {dataset}"
        raise SpecError(
            problem,
            key="method.preset",
            value=preset,
            hint=(
                f"presets are for {', '.join(_BY_DATASET)}; remove it and write the settings that"
                " you want"
            ),
        )
    return PRESETS[preset, dataset]
