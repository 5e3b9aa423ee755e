"""What each key of a spec may hold: read off the configuration classes, with the limits that types do not say."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, Final, Literal

from search_spaces.reading.config import BudgetConfig, DatasetConfig, OracleConfig, QueryConfig, ResourcesConfig, ScheduleConfig, SearchConfig, ValidationConfig
from search_spaces.reading.errors import ABSENT, SpecError, did_you_mean
from search_spaces.reading.names import BACKBONES, DATASETS, PRESET_NAMES, STRATEGIES
from trainers.mean_teacher.settings import METHODS

Kind = Literal["flag", "whole", "number", "text", "shares", "counts"]

_LARGEST: Final = 10**12
_MOST_STAGES: Final = 101
"""Of the longest schedule, the one before any question among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What one key may hold."""

    kind: Kind
    options: tuple[str, ...] = ()
    low: float = -_LARGEST
    high: float = _LARGEST
    open_low: bool = False
    open_high: bool = False
    optional: bool = False
    default: Any = ABSENT
    """ABSENT: the key must be given."""

    @property
    def allowed(self) -> str:
        """In words, for messages."""
        if self.kind == "flag":
            said = "true or false"
        elif self.options:
            said = "one of " + ", ".join(self.options)
        elif self.kind == "text":
            said = "text"
        elif self.kind == "shares":
            said = "a list of shares from 0 to 1, as in [0.5, 0.5]"
        elif self.kind == "counts":
            said = f"a list of whole numbers{self._range()}, as in [50, 200, 320]"
        else:
            said = ("a whole number" if self.kind == "whole" else "a number") + self._range()
        return said + (" or null" if self.optional else "")

    def _range(self) -> str:
        bounded_low, bounded_high = self.low > -_LARGEST, self.high < _LARGEST
        low = f"{'more than' if self.open_low else 'at least'} {self.low:.12g}"
        high = f"{'less than' if self.open_high else 'at most'} {self.high:.12g}"
        said = " and ".join(([low] if bounded_low else []) + ([high] if bounded_high else []))
        return f", {said}" if said else ""

    def holds(self, number: float) -> bool:
        """Whether a number is within the limits."""
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        return above and below


LIMITS: Final[dict[str, dict[str, Any]]] = {
    "dataset.name": {"options": DATASETS},
    "dataset.image_size": {"low": 4, "high": 4096},
    "dataset.validation.per_class": {"low": 1, "high": 10**9},
    "budget.bits": {"low": 0, "open_low": True},
    "budget.full_labels": {"low": 1, "high": 10**9},
    "budget.questions": {"low": 0, "high": 10**9},
    "schedule.initial_labels_per_class": {"low": 1, "high": 10**9},
    "schedule.stages": {"low": 0, "high": 100},
    "query.strategy": {"options": STRATEGIES},
    "query.easy_share": {"low": 0, "high": 1},
    "oracle.false_yes": {"low": 0, "high": 1, "open_high": True},
    "oracle.false_no": {"low": 0, "high": 1, "open_high": True},
    "method.name": {"options": tuple(METHODS)},
    "method.backbone": {"options": BACKBONES},
    "method.epochs": {"low": 1, "high": 100_000},
    "method.batch_size": {"low": 2, "high": 10**6},
    "method.labelled_share": {"low": 0, "high": 1, "open_low": True, "open_high": True},
    "method.labelled_per_batch": {"low": 1, "high": 10**6},
    "method.warmup_epochs": {"low": 0, "high": 100_000},
    "method.warmup_start_rate": {"low": 0, "high": 1000},
    "method.learning_rate": {"low": 0, "high": 1000, "open_low": True},
    "method.momentum": {"low": 0, "high": 1, "open_high": True},
    "method.weight_decay": {"low": 0, "high": 10},
    "method.cosine_horizon": {"low": 1, "high": 1000},
    "method.consistency_weight": {"low": 0, "high": 10**9},
    "method.consistency_rampup_epochs": {"low": 0, "high": 100_000},
    "method.logit_distance_weight": {"low": -1000, "high": 1000},
    "method.negative_weight": {"low": 0, "high": 10**6},
    "method.entropy_weight": {"low": 0, "high": 10**6},
    "method.ema_decay": {"low": 0, "high": 1, "open_high": True},
    "method.feature_noise": {"low": 0, "high": 1000},
    "search.num_candidates": {"low": 1, "high": 100_000},
    "search.seed": {"low": 0, "high": 2**31 - 1},
    "resources.workers": {"low": 1, "high": 4096},
    "resources.gpus_per_worker": {"low": 0, "high": 64},
    "resources.cpus_per_worker": {"low": 1, "high": 4096},
    "resources.max_concurrent": {"low": 1, "high": 4096},
    "resources.start_timeout": {"low": 0, "high": 10**7},
    "resources.checkpoint_seconds": {"low": 0, "high": 10**6},
    "resources.max_failures": {"low": 0, "high": 10**6},
}

SECTIONS: Final[dict[str, type[Any]]] = {
    "dataset": DatasetConfig,
    "budget": BudgetConfig,
    "schedule": ScheduleConfig,
    "query": QueryConfig,
    "oracle": OracleConfig,
    "search": SearchConfig,
    "resources": ResourcesConfig,
}
"""Sections of a spec and the classes they become; `method` is apart, as its class depends on its name."""

TRIAL_SECTIONS: Final = ("dataset", "budget", "method", "schedule", "query", "oracle")

_WRITTEN: Final = {("dataset.validation", "source"): "from"}
"""Attributes that are written otherwise in YAML."""


def written(prefix: str, attribute: str) -> str:
    """The key path of an attribute."""
    return f"{prefix}.{_WRITTEN.get((prefix, attribute), attribute)}"


@cache
def section_fields(section: str) -> Mapping[str, Field]:
    """Key path -> field, of everything in a section; of `method`, what any of the methods has."""
    if section == "method":
        found = {"method.name": Field(kind="text", **LIMITS["method.name"])}
        found["method.preset"] = Field(kind="text", optional=True, default=None, options=PRESET_NAMES)
        for method in METHODS:
            found.update(method_fields(method))
        return found
    found = dict(_class_fields(SECTIONS[section], section))
    if section == "schedule":
        found["schedule.stages"] = Field(kind="whole", optional=True, default=None, **LIMITS["schedule.stages"])
    return found


@cache
def method_fields(name: str) -> Mapping[str, Field]:
    """Key path -> field, of the settings that one method has."""
    return dict(_class_fields(METHODS[name], "method"))


@cache
def trial_fields() -> Mapping[str, Field]:
    """Key path -> field, of everything that a trial reads."""
    return {key: field for section in TRIAL_SECTIONS for key, field in section_fields(section).items()}


def _class_fields(cls: type[Any], prefix: str) -> Iterator[tuple[str, Field]]:
    hints = typing.get_type_hints(cls)
    for item in fields(cls):
        key, hint = written(prefix, item.name), hints[item.name]
        if hint is ValidationConfig:
            yield from _class_fields(ValidationConfig, key)
        else:
            yield key, _field(hint, ABSENT if item.default is MISSING else item.default, LIMITS.get(key, {}))


def _field(hint: Any, default: Any, limits: dict[str, Any]) -> Field:
    arguments = typing.get_args(hint)
    optional = isinstance(hint, types.UnionType) and type(None) in arguments
    if optional:
        (hint,) = (argument for argument in arguments if argument is not type(None))
        arguments = typing.get_args(hint)
    known: dict[Any, Kind] = {bool: "flag", int: "whole", float: "number", str: "text"}
    if typing.get_origin(hint) is Literal:
        return Field(kind="text", options=arguments, optional=optional, default=default)
    of_lists: dict[Any, Kind] = {float: "shares", int: "counts"}
    kind: Kind = of_lists[arguments[0]] if typing.get_origin(hint) is tuple else known[hint]
    return Field(kind=kind, optional=optional, default=default, **limits)


def convert(field: Field, key: str, value: Any) -> Any:
    """The value as its field's one type: a whole number where a fraction may stand becomes one, shares become a tuple; nothing else is converted.

    Raises:
        SpecError: it is of another type, or outside what the key allows.
    """
    if value is None and field.optional:
        return None
    match field.kind:
        case "flag" if isinstance(value, bool):
            return value
        case "whole" if _is_whole(value) and field.holds(value):
            return value
        case "number" if _is_number(value) and field.holds(value):
            return float(value)
        case "text" if isinstance(value, str) and (not field.options or value in field.options):
            return value
        case "shares" if isinstance(value, (list, tuple)):
            return _shares(field, key, value)
        case "counts" if isinstance(value, (list, tuple)) and 0 < len(value) <= _MOST_STAGES and all(_is_whole(item) and field.holds(item) for item in value):
            return tuple(value)
    hint = did_you_mean(value, field.options) if isinstance(value, str) else None
    raise SpecError(f"must be {field.allowed}", key=key, value=value, hint=hint)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _shares(field: Field, key: str, value: list[Any] | tuple[Any, ...]) -> tuple[float, ...]:
    if len(value) > LIMITS["schedule.stages"]["high"]:
        raise SpecError(f"has {len(value)} shares, and at most {LIMITS['schedule.stages']['high']} rounds are possible", key=key)
    for share in value:
        if not _is_number(share):
            raise SpecError(f"must be {field.allowed}", key=key, value=list(value))
        if not 0 <= share <= 1:
            raise SpecError("every share must be from 0 to 1, and all of them sum to 1", key=key, value=list(value))
    return tuple(float(share) for share in value)


def unknown_key(key: str, known: Mapping[str, Any]) -> SpecError:
    """The error for a key path that is not among `known`, with the nearest one in its section, or one of that name in another."""
    section, _, word = key.rpartition(".")
    siblings = {path.removeprefix(f"{section}.") for path in known if path.startswith(f"{section}.")} if section else set()
    siblings |= {path.split(".")[0] for path in siblings}
    hint = did_you_mean(word, siblings)
    elsewhere = [path for path in known if path.rpartition(".")[2] == word]
    if elsewhere:
        hint = f'did you mean "{elsewhere[0]}"?'
    elif hint is None:
        hint = did_you_mean(key, known) or (f"known here: {', '.join(sorted(siblings))}" if siblings else None)
    return SpecError("unknown key", key=key, hint=hint)
