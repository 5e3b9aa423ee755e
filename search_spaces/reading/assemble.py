"""Puts a flat set of values (key path -> value) together into one trial's configuration, and takes it apart again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Final

from search_spaces.reading.config import TrialConfig, ValidationConfig
from search_spaces.reading.errors import ABSENT, SpecError
from search_spaces.reading.fields import SECTIONS, TRIAL_SECTIONS, convert, method_fields, section_fields, trial_fields, unknown_key, written
from search_spaces.reading.names import BACKBONES_FOR, DATASET_KINDS
from search_spaces.reading.presets import preset_values
from search_spaces.reading.schedule import equal_shares
from trainers.mean_teacher.settings import METHODS

USER_STUDY_ERROR: Final = 0.077
"""Rate of wrong answers that `noisy` has unless told otherwise: 92.3% were right (Hu et al. 2020, user study)."""

_ALTERNATIVES: Final = {
    "budget.bits": ("budget.full_labels",),
    "budget.full_labels": ("budget.bits",),
    "method.labelled_share": ("method.labelled_per_batch",),
    "method.labelled_per_batch": ("method.labelled_share",),
}
"""Keys that say one thing in two ways: setting one takes the other back."""


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Key path -> value, of a nested mapping."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of flatten."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return nested


def overlay(values: Mapping[str, Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with each layer's written over the one before."""
    merged = dict(values)
    for layer in layers:
        for key in layer:
            for other in _ALTERNATIVES.get(key, ()):
                if other not in layer:
                    merged.pop(other, None)
        merged.update(layer)
    return merged


def number_of_stages(values: Mapping[str, Any]) -> int | None:
    """Rounds of questions that `stages`, or else the length of `split`, asks for; None where neither stands."""
    stages, split = values.get("schedule.stages"), values.get("schedule.split")
    if isinstance(stages, int) and not isinstance(stages, bool):
        return stages
    return len(split) if isinstance(split, (list, tuple)) else None


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every value converted to its type; what is not given is the preset's, or else the default. `schedule` stays as written: `stages`, `split` or both.

    Raises:
        SpecError: an unknown key, a wrong type, a value out of range, or a key that is missing. Without a place: see SpecError.located.
    """
    known = trial_fields()
    for key in values:
        if key not in known:
            raise unknown_key(key, known)
    if values.get("method.name") is None:
        raise SpecError("must be given", key="method.name", hint=f"write one of {', '.join(METHODS)}")
    method: str = convert(known["method.name"], "method.name", values["method.name"])
    # A setting that two methods have may differ in its default: each has its own.
    known = {**known, **method_fields(method)}
    done = {key: convert(known[key], key, value) for key, value in values.items()}
    mine = {f"method.{item.name}" for item in fields(METHODS[method])} | {"method.name", "method.preset"}
    for key in values:
        if key.startswith("method.") and key not in mine:
            raise SpecError(f"method {method} has no such setting", keys=(key, "method.name"))
    for key, value in preset_values(done.get("method.preset"), done.get("dataset.name")).items():
        if not any(other in done for other in (key, *_ALTERNATIVES.get(key, ()))):
            done[key] = value
    noisy = done.get("oracle.name") == "noisy"
    for key, field in known.items():
        if key in done or key in ("schedule.stages", "schedule.split") or (key.startswith("method.") and key not in mine):
            continue
        if field.default is ABSENT:
            raise SpecError("must be given", key=key, hint=f"write {field.allowed}")
        done[key] = USER_STUDY_ERROR if noisy and key in ("oracle.false_yes", "oracle.false_no") else field.default
    return done


def build_config(values: Mapping[str, Any]) -> TrialConfig:
    """One trial's configuration, each value checked by itself and against the others.

    Raises:
        SpecError: as `complete`, or if values contradict one another. Without a place: see SpecError.located.
    """
    done = complete(values)
    done["schedule.split"] = _split(done.get("schedule.stages"), done.get("schedule.split"))
    built: dict[str, Any] = {}
    for section in TRIAL_SECTIONS:
        cls = METHODS[done["method.name"]] if section == "method" else SECTIONS[section]
        built[section] = _build(cls, section, done)
    config = TrialConfig(**built)
    _check(config)
    return config


def config_to_mapping(config: TrialConfig) -> dict[str, Any]:
    """The configuration as a nested mapping of JSON values, with every default; build_config(flatten(...)) is the inverse."""
    return nest(flat_settings(config))


def flat_settings(config: TrialConfig) -> dict[str, Any]:
    """Key path -> JSON value of everything in the configuration, with every default."""
    flat: dict[str, Any] = {}
    for key, names in _attributes():
        value: Any = config
        for name in names:
            value = getattr(value, name, ABSENT)
        if value is not ABSENT:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


@cache
def _attributes() -> list[tuple[str, list[str]]]:
    """Of every key of a trial, the attributes that lead to its value."""
    return [(key, ["source" if name == "from" else name for name in key.split(".")]) for key in trial_fields()]


def _build(cls: type[Any], prefix: str, values: Mapping[str, Any]) -> Any:
    arguments = {}
    for item in fields(cls):
        key = written(prefix, item.name)
        arguments[item.name] = _build(ValidationConfig, key, values) if key == "dataset.validation" else values[key]
    return cls(**arguments)


def _split(stages: int | None, split: tuple[float, ...] | None) -> tuple[float, ...]:
    keys = ("schedule.stages", "schedule.split")
    if split is None and stages is None:
        raise SpecError("must be given", key="schedule.split", hint="write split: [0.5, 0.5], or stages: 2 for equal shares")
    if split is None:
        return equal_shares(stages or 0)
    if stages is not None and stages != len(split):
        raise SpecError(f"stages: {stages} disagrees with the {len(split)} shares of split", keys=keys, hint="write one of them, or let them agree")
    return split


def _check(config: TrialConfig) -> None:
    """What a trial's values must be to one another, apart from the data."""
    if config.dataset.name in ("folder", "features") and not config.dataset.path:
        what = "the folder with train/ and test/ (or val/)" if config.dataset.name == "folder" else "an .npz file with arrays x and y"
        raise SpecError(f"data set {config.dataset.name} needs dataset.path, {what}", keys=("dataset.path", "dataset.name"))
    if config.dataset.name == "digits" and config.dataset.path is not None:
        raise SpecError("digits ship with scikit-learn and have no path", key="dataset.path", value=config.dataset.path, hint="leave path out")
    if config.oracle.name == "labels" and (config.oracle.false_yes or config.oracle.false_no):
        raise SpecError("oracle labels makes no mistakes", keys=("oracle.false_yes", "oracle.false_no", "oracle.name"), hint="write oracle.name: noisy")
    _check_batch(config)
    kind = DATASET_KINDS[config.dataset.name]
    fitting = ("auto", *BACKBONES_FOR[kind])
    if config.method.backbone not in fitting:
        raise SpecError(
            f"does not take {'feature vectors' if kind == 'features' else kind}",
            key="method.backbone",
            value=config.method.backbone,
            hint=f"write one of {', '.join(fitting)}",
        )


def _check_batch(config: TrialConfig) -> None:
    method = config.method
    if method.labelled_per_batch is None:
        return
    if method.labelled_share is not None:
        problem = "labelled_share and labelled_per_batch say the same thing twice"
        raise SpecError(problem, keys=("method.labelled_share", "method.labelled_per_batch"), hint="write one of them")
    most = max(method.labelled_per_batch)
    if most >= method.batch_size:
        raise SpecError(
            f"{most} labelled images leave no room for others in a batch of {method.batch_size}",
            keys=("method.labelled_per_batch", "method.batch_size"),
            hint="write fewer, or a larger batch_size",
        )


def check_sections(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The values of one flat section (`search`, `resources`), converted, with defaults.

    Raises:
        SpecError: as `complete`.
    """
    known = section_fields(section)
    for key in values:
        if key not in known:
            raise unknown_key(key, known)
    return {key.partition(".")[2]: convert(field, key, values[key]) if key in values else field.default for key, field in known.items()}
