"""Puts a flat set of values (key path -> value) together into one trial's configuration, and takes
it apart again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from search_spaces.reading.config import (
    BudgetConfig,
    DatasetConfig,
    QueryConfig,
    ResourcesConfig,
    ScheduleConfig,
    SearchConfig,
    TrialConfig,
    ValidationConfig,
)
from search_spaces.reading.errors import ABSENT, SpecError
from search_spaces.reading.initial_choices import INITIAL_CHOICES
from search_spaces.reading.initial_query import check_features, initial_query
from search_spaces.reading.recorded_presets import preset_values
from search_spaces.reading.schedule import equal_shares
from search_spaces.reading.settings import (
    PLUGINS,
    TRIAL_SECTIONS,
    Field,
    Keys,
    class_fields,
    key_of,
)
from trainers.errors import SettingsError
from trainers.metrics import METRICS, Metric

_STAGE_KEYS = ("schedule.stages", "schedule.split")


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


def number_of_stages(values: Mapping[str, Any]) -> int | None:
    """Rounds of questions that `stages`, or else the length of `split`, asks for; None where
    neither stands.
    """
    stages, split = values.get("schedule.stages"), values.get("schedule.split")
    if isinstance(stages, int) and not isinstance(stages, bool):
        return stages
    return len(split) if isinstance(split, (list, tuple)) else None


def complete(values: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """Returns every value converted to its type; what is not given is the default. The schedule
    stays as written.

    Raises:
        SpecError: an unknown key, a wrong type, a value out of range, or a key that is missing.
            Without a place: see SpecError.located.
    """
    values = {key: value for key, value in values.items() if not keys.is_unread(key, values)}
    known = {
        key: field
        for section in TRIAL_SECTIONS
        for key, field in keys.section(section, values).items()
    }
    for key in values:
        if key not in known:
            keys.lookup(key, values)
    done = {key: known[key].convert(key, value) for key, value in values.items()}
    if keys.recorded:
        _supply(done, known, keys)
    for key, field in known.items():
        if key in done or key in _STAGE_KEYS:
            continue
        if field.default is ABSENT:
            raise _missing(key, field, keys, done)
        done[key] = field.default
    return done


def _missing(key: str, field: Field, keys: Keys, values: Mapping[str, Any]) -> SpecError:
    """Returns the error for a key that must be given; of a plug-in's setting, it stands at the
    plug-in's name.
    """
    section = key.partition(".")[0]
    hint = f"write {field.allowed}"
    if section not in PLUGINS:
        return SpecError("must be given", key=key, hint=hint)
    plugin, name = PLUGINS[section], keys.name_of(section, values)
    if key not in class_fields(keys.plugin(section, name), section):
        return SpecError("must be given", key=key, hint=hint)
    return SpecError(
        f"{plugin.noun} {name} needs {key}",
        keys=(plugin.key, key),
        hint=f"{hint}: {field.meaning}" if field.meaning else hint,
    )


def _supply(done: dict[str, Any], known: Mapping[str, Field], keys: Keys) -> None:
    """Adds what the preset that a recorded spec names supplies."""
    preset = preset_values(done.get("method.preset"), done.get("dataset.name"))
    for key, value in preset.items():
        if key in known and not any(other in done for other in (key, *keys.other_ways(key, done))):
            done[key] = known[key].convert(key, value)


def build_config(values: Mapping[str, Any], keys: Keys) -> TrialConfig:
    """Returns one trial's configuration, each value checked by itself. Whether the settings of its
    plug-ins agree is `check_plugins`'s to say.

    Raises:
        SpecError: as `complete`, or if values contradict one another. Without a place: see
            SpecError.located.
    """
    done = complete(values, keys)
    return TrialConfig(
        dataset=DatasetConfig(
            source=_plugin("dataset", done, keys),
            validation=_instance(ValidationConfig, "dataset.validation", done),
        ),
        budget=_instance(BudgetConfig, "budget", done),
        method=_plugin("method", done, keys),
        start=_plugin("start", done, keys),
        schedule=ScheduleConfig(
            initial_labels_per_class=done["schedule.initial_labels_per_class"],
            split=_split(done.get("schedule.stages"), done.get("schedule.split")),
            initial_choice=done["schedule.initial_choice"],
            initial_query=initial_query(done["schedule.initial_choice"], keys),
            rounds_buy=done["schedule.rounds_buy"],
        ),
        query=QueryConfig(
            strategy=_plugin("query", done, keys),
            requery=done["query.requery"],
            mask_refused=done["query.mask_refused"],
        ),
        oracle=_plugin("oracle", done, keys),
        task=_plugin("task", done, keys),
    )


def _plugin(section: str, done: Mapping[str, Any], keys: Keys) -> Any:
    return _instance(keys.plugin(section, done[PLUGINS[section].key]), section, done)


def _instance(cls: type[Any], prefix: str, values: Mapping[str, Any]) -> Any:
    return cls(**{item.name: values[key_of(prefix, item.name)] for item in fields(cls)})


def check_plugins(config: TrialConfig, facts: Any, workers: int) -> None:
    """Asks each plug-in whether its settings agree with one another, with the data and with the
    number of ranks.

    Raises:
        SpecError: they do not. Without a place: see SpecError.located.
    """
    _check_together(config)
    check_features(config, facts)
    _check_scores(config)
    for section, plugin, arguments in (
        ("dataset", config.dataset.source, (facts,)),
        ("method", config.method, (facts, workers)),
        ("start", config.start, (facts, workers)),
        ("query", config.query.strategy, (facts,)),
        ("oracle", config.oracle, (facts,)),
        ("task", config.task, (facts,)),
    ):
        check = getattr(plugin, "check", None)
        if check is None:
            continue
        try:
            check(*arguments)
        except SettingsError as error:
            more = ("resources.workers",) if "resources.workers" in error.problem else ()
            raise SpecError(
                error.problem,
                keys=(*(f"{section}.{name}" for name in error.fields), *more),
                hint=error.hint,
            ) from None


def _check_together(config: TrialConfig) -> None:
    """Checks that the plug-ins can work with one another."""
    task, choice = config.task, config.schedule.initial_choice
    _check_metric(task)
    for section, method in _methods(config):
        if task.trained_as not in method.tasks:
            raise SpecError(
                f"{section} {method.name} does not train for task {task.name}",
                keys=(f"{section}.name", "task.name"),
                hint=f"it trains for {', '.join(method.tasks)}",
            )
        if task.metric.array not in method.offers:
            raise SpecError(
                f"task {task.name} is judged by {task.metric.name}, which is made of the scores"
                f" {task.metric.array}, and {section} {method.name} does not offer them",
                keys=(f"{section}.name", "task.name"),
                hint=f"choose another {section} or task; {method.name} offers"
                f" {', '.join(method.offers)}",
            )
    if getattr(config.query.strategy, "about_one_class", False) and not getattr(
        task, "one_class", True
    ):
        raise SpecError(
            f"strategy {config.query.strategy.name} looks at the class that a question is about,"
            f" and those of task {task.name} are about several",
            keys=("query.strategy", "task.name"),
            hint="write another strategy, as random, easy, hard, margin or entropy",
        )
    # A strategy draws as many images as `uniform` does, of whatever classes.
    if (choice if choice in INITIAL_CHOICES else "uniform") not in task.choices:
        raise SpecError(
            f"initial_choice: {choice} has no meaning for task {task.name}",
            keys=("schedule.initial_choice", "task.name"),
            hint=f"write one of {', '.join(task.choices)}",
        )
    if getattr(config.oracle, "simulated", True):
        return
    if config.schedule.choice.knows_classes and config.schedule.initial_labels_per_class:
        raise SpecError(
            f"oracle {config.oracle.name} does not know which images are of which class, as"
            f" initial_choice: {choice} needs it to",
            keys=("schedule.initial_choice", "oracle.name"),
            hint="write initial_choice: "
            + ", or ".join(
                name
                for name, known in INITIAL_CHOICES.items()
                if name in task.choices and not known.knows_classes
            ),
        )
    if config.dataset.validation.source == "split":
        raise SpecError(
            f"oracle {config.oracle.name} does not know which images are of which class, as a"
            " validation split needs it to",
            keys=("dataset.validation.from", "oracle.name"),
            hint="write validation: {from: share}, {from: initial_labels} or {from: none}",
        )


def _methods(config: TrialConfig) -> list[tuple[str, Any]]:
    """Returns the methods of a trial's stages, each after the section that names it."""
    first = config.method_of(0)
    return [("method", config.method)] + ([] if first is config.method else [("start", first)])


def _check_metric(task: Any) -> None:
    metric, of = task.metric, f"task {task.name} is judged by"
    at_fault = "the package of that task is at fault; write another"
    if not isinstance(metric, Metric):
        raise SpecError(
            f"{of} {metric!r:.100}, which is no trainers.metrics.Metric",
            keys=("task.name",),
            hint=at_fault,
        )
    # Stages and records are told apart by the metric's name.
    if METRICS.get(metric.name, metric) != metric:
        raise SpecError(
            f"{of} a metric of its own that it calls {metric.name}, as another one is called",
            keys=("task.name",),
            hint=at_fault,
        )


def _check_scores(config: TrialConfig) -> None:
    """Checks that each method gives every score array that the query strategy or the task reads."""
    query = config.query
    prefixes = ("",) if query.mask_refused else ("raw_", "")
    for section, method in _methods(config):
        lacking = [
            name
            for name in config.scores_needed()
            if not any(f"{prefix}{name}" in method.offers for prefix in prefixes)
        ]
        if lacking:
            raise SpecError(
                f"strategy {query.strategy.name} of task {config.task.name} needs the scores"
                f" {', '.join(lacking)}, which {section} {method.name} does not offer",
                keys=("query.strategy", f"{section}.name"),
                hint=f"choose another strategy or {section};"
                f" {method.name} offers {', '.join(method.offers)}",
            )


def config_to_mapping(config: TrialConfig) -> dict[str, Any]:
    """Returns the configuration as a nested mapping of JSON values, with every default;
    build_config(flatten(...)) is the inverse.
    """
    return nest(flat_settings(config))


def flat_settings(config: TrialConfig) -> dict[str, Any]:
    """Returns key path -> JSON value of everything in the configuration, with every default."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, (value, _) in _items(config)
    }


def config_fields(config: TrialConfig) -> dict[str, Field]:
    """Returns key path -> field of everything in the configuration but the names of its
    plug-ins.
    """
    return {key: field for key, (_, field) in _items(config) if field is not None}


def _items(config: TrialConfig) -> Iterator[tuple[str, tuple[Any, Field | None]]]:
    for section in TRIAL_SECTIONS:
        part = getattr(config, section)
        if section in PLUGINS:
            slot = PLUGINS[section]
            plugin = getattr(part, slot.attribute) if slot.attribute else part
            yield slot.key, (plugin.name, None)
            if plugin is not part:
                yield from _values(plugin, section)
        yield from _values(part, section)


def _values(part: Any, prefix: str) -> Iterator[tuple[str, tuple[Any, Field | None]]]:
    known = class_fields(type(part), prefix)
    for item in fields(part):
        key, value = key_of(prefix, item.name), getattr(part, item.name)
        if isinstance(value, ValidationConfig):
            yield from _values(value, key)
        elif key in known:
            yield key, (value, known[key])


def _split(stages: int | None, split: tuple[float, ...] | None) -> tuple[float, ...]:
    keys = ("schedule.stages", "schedule.split")
    if split is None and stages is None:
        raise SpecError(
            "must be given",
            key="schedule.split",
            hint="write split: [0.5, 0.5], or stages: 2 for equal shares",
        )
    if split is None:
        return equal_shares(stages or 0)
    if stages is not None and stages != len(split):
        raise SpecError(
            f"stages: {stages} disagrees with the {len(split)} shares of split",
            keys=keys,
            hint="write one of them, or let them agree",
        )
    return split


def source_of(values: Mapping[str, Any], keys: Keys) -> Any:
    """Returns the data source that the keys of the section `dataset` describe.

    Raises:
        SpecError: as `complete`.
    """
    return _plugin("dataset", _section(values, "dataset", keys), keys)


def search_config(values: Mapping[str, Any], keys: Keys) -> SearchConfig:
    """Returns the checked section `search`.

    Raises:
        SpecError: as `complete`.
    """
    done = _section(values, "search", keys)
    return SearchConfig(
        algorithm=_plugin("search", done, keys),
        num_candidates=done["search.num_candidates"],
        seed=done["search.seed"],
    )


def resources_config(values: Mapping[str, Any], keys: Keys) -> ResourcesConfig:
    """Returns the checked section `resources`.

    Raises:
        SpecError: as `complete`.
    """
    resources: ResourcesConfig = _instance(
        ResourcesConfig, "resources", _section(values, "resources", keys)
    )
    return resources


def _section(values: Mapping[str, Any], section: str, keys: Keys) -> dict[str, Any]:
    for key in values:
        keys.lookup(key, values)
    done: dict[str, Any] = {}
    for key, field in keys.section(section, values).items():
        if key not in values and field.default is ABSENT:
            raise _missing(key, field, keys, values)
        done[key] = field.convert(key, values[key]) if key in values else field.default
    return done
