"""What `method.preset` means in a sweep of an earlier version: the values of one of the files in
presets/, which supply what the spec does not write. Specs of today extend such a file instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from search_spaces.reading.errors import Place, SpecError
from search_spaces.reading.yaml_source import PACKAGED, parse, plain, read_text

PRESETS: Final = ("default", "authors")
DATASETS: Final = ("cifar100", "cifar10", "mini_imagenet", "imagenet")


def preset_values(preset: str | None, dataset: str | None) -> Mapping[str, Any]:
    """Returns key path -> value of what the preset supplies for this data set.

    Raises:
        SpecError: it has nothing for this data set. Without a place: see SpecError.located.
    """
    if preset is None or dataset is None:
        return {}
    if dataset not in DATASETS:
        problem = f"there are no published settings for the data set {dataset}"
        raise SpecError(problem, key="method.preset", value=preset)
    return _values(f"{preset}_{dataset}.yaml")


def supplied() -> frozenset[str]:
    """Returns every key that some preset supplies."""
    return frozenset(
        key for preset in PRESETS for dataset in DATASETS for key in preset_values(preset, dataset)
    )


@cache
def _values(name: str) -> Mapping[str, Any]:
    path = PACKAGED / "presets" / name
    document = plain(parse(read_text(path, str(path)), Place(file=str(path))))
    extended = document.get("extends", [])
    found: dict[str, Any] = {}
    for other in [extended] if isinstance(extended, str) else extended:
        found |= _values(other)
    sections = document.get("base", {}).items()
    return found | {
        f"{section}.{key}": value for section, part in sections for key, value in part.items()
    }
