"""Ids and records through releases: a new setting renames nothing, and an older record is read with
the defaults of what it lacks.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from orchestrator.catalogue import INSTALLED, Catalogue, load_spec
from orchestrator.sweeps.stage_store import stage_key
from search_spaces.reading.assemble import build_config, flatten, nest
from search_spaces.reading.errors import ABSENT, SpecError
from search_spaces.reading.plugins import Kind
from search_spaces.reading.schema import (
    DEFAULTS,
    METHOD_DEFAULTS,
    STRATEGY_DEFAULTS,
    TASK_DEFAULTS,
    UNREAD,
    changed,
    with_defaults,
)
from search_spaces.reading.settings import Keys
from search_spaces.reading.trials import (
    enumerate_trials,
    make_trial,
    stage_prefixes,
    trial_from_mapping,
    trial_to_mapping,
)
from tests.helpers.stage_world import QUICK, TRAIN, some_inputs
from trainers.mean_teacher.settings import MeanTeacherConfig

NEW_SCHEMA = "a default has changed: write a new schema, do not edit this one"
NEW_LINE = (
    "a new setting: append its line to the table, with the default that it is born with (that"
    " changes no id)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterConfig(MeanTeacherConfig):
    """Mean Teacher as a later release may have it."""

    sharpening: float = 0.25
    views: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedConfig(MeanTeacherConfig):
    """Mean Teacher with another default."""

    epochs: int = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig(MeanTeacherConfig):
    """Another method that has settings of the same names, and other defaults."""

    name: ClassVar[str] = "toy"

    epochs: int = 99


LATER, CHANGED, SECOND = (
    INSTALLED.adding("method", cls) for cls in (LaterConfig, ChangedConfig, ToyConfig)
)


def names_of_everything(catalogue: Catalogue = INSTALLED) -> list[Any]:
    trials = [
        trial
        for name in ("ablations.yaml", "ablations_images.yaml", "smoke.yaml")
        for trial in enumerate_trials(load_spec(name, catalogue=catalogue)) or []
    ]
    return [[trial.id, trial.candidate, *stage_prefixes(trial)] for trial in trials]


BORN_WITH = ("oracle.false_yes", "oracle.false_no")
"""Every oracle had these settings in schema 2, and the one that reads them had defaults of its own,
which are spelled out.
"""

BEFORE = names_of_everything()


def test_a_second_method_changes_nothing_of_the_first() -> None:
    assert names_of_everything(SECOND) == BEFORE
    for name, wanted in (("mean_teacher", 20), ("toy", 99)):
        values = {
            "dataset.name": "digits",
            "budget.full_labels": 100,
            "method.name": name,
            "schedule.initial_labels_per_class": 2,
            "schedule.stages": 1,
        }
        assert build_config(values, Keys(SECOND)).method.epochs == wanted


def test_a_new_setting_changes_no_id() -> None:
    assert "method.sharpening" in Keys(LATER).trial()
    assert names_of_everything(LATER) == BEFORE


def test_a_new_setting_with_another_value_is_another_trial() -> None:
    spec = load_spec("smoke.yaml", ["cases={}"], catalogue=LATER)
    plain, sharp = make_trial(spec, {}, 0), make_trial(spec, {"method.sharpening": 0.5}, 0)
    assert plain.id != sharp.id
    assert stage_prefixes(plain)[0] != stage_prefixes(sharp)[0]


def key_of(method: MeanTeacherConfig, parent: str | None = None) -> str:
    inputs = some_inputs(np.zeros(TRAIN, np.int32))
    return stage_key(
        method=method,
        plan=method.stage(0 if parent is None else 1, 1, has_negatives=True),
        fingerprint="patterns",
        inputs=inputs,
        seed=0,
        draw=0,
        parent=parent,
        world_size=1,
        device_kind="cpu",
    )


STAGES = key_of(QUICK), key_of(QUICK, "parent")


def test_a_new_setting_changes_no_key_of_a_trained_stage() -> None:
    """So that a sweep that is resumed finds what it trained."""
    settings = {item.name: getattr(QUICK, item.name) for item in dataclasses.fields(QUICK)}
    method = LaterConfig(**settings)
    assert (key_of(method), key_of(method, "parent")) == STAGES
    assert key_of(dataclasses.replace(method, sharpening=0.5)) != STAGES[0]


def test_a_record_without_the_new_setting_is_read_with_its_default() -> None:
    trial = make_trial(load_spec("smoke.yaml", ["cases={}"], catalogue=LATER), {}, 0)
    mapping = json.loads(json.dumps(trial_to_mapping(trial)))
    del mapping["config"]["method"]["sharpening"], mapping["config"]["method"]["views"]
    assert trial_from_mapping(mapping, LATER) == trial


SHORT, LONG = (
    make_trial(load_spec("smoke.yaml", ["cases={}", f"method.epochs={epochs}"]), {}, 0).id
    for epochs in (20, 40)
)


def test_a_changed_default_changes_no_id() -> None:
    spec = load_spec("smoke.yaml", ["cases={}", "method.epochs=20"], catalogue=CHANGED)
    assert make_trial(spec, {}, 0).id == SHORT
    assert make_trial(spec, {"method.epochs": 40}, 0).id == LONG


def test_the_schema_is_todays_defaults() -> None:
    keys = Keys(INSTALLED)
    own = ("dataset", "budget", "start", "schedule", "oracle")
    sections = (*own, "search", "resources")
    today = {key: field for section in sections for key, field in keys.any_plugin(section).items()}
    tables: dict[Kind, Any] = {"query": STRATEGY_DEFAULTS, "task": TASK_DEFAULTS}
    for kind, name in [(each, name) for each in tables for name in INSTALLED.names(each)]:
        mine = keys.of_plugin(kind, name)
        table = tables[kind].get(name, {})
        assert table.keys() <= mine.keys(), f"{name} has no longer what its table has"
        for key, value in table.items():
            assert mine[key].default == value and type(mine[key].default) is type(value), (
                f"{key}: {NEW_SCHEMA}"
            )
        today |= {key: field for key, field in mine.items() if key not in table}
    for key, value in DEFAULTS.items():
        if key in BORN_WITH:
            continue
        assert today[key].default == value and type(today[key].default) is type(value), (
            f"{key}: {NEW_SCHEMA}"
        )
    # The shares of a schedule are always spelled out, however it was written.
    assert {key for key, field in today.items() if field.default is not ABSENT} - {
        "schedule.split"
    } <= DEFAULTS.keys(), NEW_LINE
    assert METHOD_DEFAULTS.keys() == set(INSTALLED.names("method")), (
        "a new method: append its table"
    )
    for name, table in METHOD_DEFAULTS.items():
        mine = {
            key: field
            for key, field in Keys(INSTALLED, UNREAD).of_plugin("method", name).items()
            if key != "method.name"
        }
        for key, value in table.items():
            assert mine[key].default == value and type(mine[key].default) is type(value), (
                f"{key}: {NEW_SCHEMA}"
            )
        assert mine.keys() <= table.keys(), NEW_LINE


def test_the_path_of_the_data_is_no_part_of_an_id(tmp_path: Any) -> None:
    found = []
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, x=np.zeros((500, 8), np.float32), y=np.arange(500) % 5)
        trials = (
            enumerate_trials(
                load_spec("features_example.yaml", [f"dataset.path={tmp_path / name}"])
            )
            or []
        )
        found.append([(trial.id, trial.candidate, stage_prefixes(trial)) for trial in trials])
    assert found[0] == found[1]


def test_written_settings_are_those_that_differ() -> None:
    base = load_spec("smoke.yaml", ["cases={}"]).base
    differ = changed(base)
    assert changed(differ) == differ
    methods_own = {key: value for key, value in differ.items() if key.startswith("method.")}
    assert methods_own == {
        "method.name": "mean_teacher",
        "method.epochs": 8,
        "method.learning_rate": 0.2,
    }
    assert not any(key.startswith("query.") for key in differ)
    assert (
        changed(
            {key: value for key, value in base.items() if not key.startswith(("query.", "oracle."))}
        )
        == differ
    )
    assert changed({"method.name": "mean_teacher", "method.nls": 1}) == {
        "method.name": "mean_teacher",
        "method.nls": 1,
    }, "1 is not true"
    assert (
        changed({"method.name": "of a later release", "method.nls": True, "unheard.of": 1})[
            "unheard.of"
        ]
        == 1
    )


def test_a_mapping_without_what_has_a_default_is_whole() -> None:
    trial = make_trial(
        load_spec("smoke.yaml", ["cases={}", "method.epochs=7", "query.strategy=mixed"]), {}, 0
    )
    mapping = json.loads(json.dumps(trial_to_mapping(trial)))
    mapping["config"] = nest(changed(flatten(mapping["config"])))
    assert trial_from_mapping(mapping, INSTALLED) == trial
    assert (
        with_defaults({"oracle": {"name": "noisy"}})
        .keys()
        .isdisjoint({"oracle.false_yes", "search.seed"})
    )


FACTS = trial_to_mapping(make_trial(load_spec("smoke.yaml"), {}, 0))["facts"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "../../../evil"),
        ("id", 7),
        ("candidate", "0123456789AB"),
        ("cases", [1]),
        ("cases", 3),
        ("seed", -1),
        ("seed", True),
        ("settings", 4),
        ("config", []),
        ("config", {"method": []}),
        ("settings", {"method.epochs": float("nan")}),
        ("facts", {"num_classes": "ten"}),
        *(
            ("facts", {**FACTS, key: value})
            for key, value in (
                ("num_classes", 1.5),
                ("num_classes", 0),
                ("name", None),
                ("kind", "sounds"),
                ("more", 1),
            )
        ),
        ("schedule", {"initial_labels": 2, "quotas": [-3]}),
        ("schedule", {"initial_labels": 2, "quotas": None}),
        ("schedule", []),
        ("bits", "many"),
        ("bits", float("inf")),
        ("budget_bits", None),
    ],
)
def test_a_damaged_record_is_refused(key: str, value: Any) -> None:
    mapping = trial_to_mapping(make_trial(load_spec("smoke.yaml"), {}, 0))
    with pytest.raises(SpecError) as caught:
        trial_from_mapping({**mapping, key: value}, INSTALLED)
    assert str(caught.value).isprintable()
    with pytest.raises(SpecError):
        trial_from_mapping({name: item for name, item in mapping.items() if name != key}, INSTALLED)
