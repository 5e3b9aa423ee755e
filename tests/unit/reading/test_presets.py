"""Presets: published settings that supply what a spec does not write, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.catalogue import INSTALLED, load_spec
from search_spaces.reading.config import Trial
from search_spaces.reading.errors import SpecError
from search_spaces.reading.presets import PRESETS
from search_spaces.reading.trials import enumerate_trials, trial_from_mapping, trial_to_mapping

SPEC = """\
name: preset
dataset: {name: cifar100, validation: {from: none}}
budget: {mode: table, questions: 47000}
base:
  method: {name: mean_teacher, preset: default, epochs: 7}
  schedule: {initial_labels_per_class: 30, split: [0.574468, 0.425532]}
cases:
  as in the base: {}
  authors: {method.preset: authors}
  authors, own share: {method.preset: authors, method.labelled_share: 0.2}
  without: {method.preset: null}
  own batch: {method.batch_size: 100}
seeds: [0]
"""


@pytest.fixture
def trials(tmp_path: Path) -> dict[str, Trial]:
    path = tmp_path / "preset.yaml"
    path.write_text(SPEC)
    found = enumerate_trials(load_spec(str(path)))
    assert found is not None
    return {case: trial for trial in found for case in trial.cases}


def test_a_preset_supplies_what_is_not_written_and_only_that(trials: dict[str, Trial]) -> None:
    base = trials["as in the base"].config
    assert (base.method.epochs, base.method.batch_size, base.method.consistency_weight) == (
        7,
        512,
        1000,
    )
    assert (base.method.backbone, base.method.teacher_init, base.query.mask_refused) == (
        "shake_shake_26",
        "student",
        True,
    )
    assert trials["own batch"].config.method.batch_size == 100
    assert trials["own batch"].config.method.learning_rate == 0.2


def test_a_case_may_take_another_preset_or_none(trials: dict[str, Trial]) -> None:
    authors = trials["authors"].config
    assert authors.method.labelled_per_batch == (50, 200, 320)
    assert (
        authors.method.teacher_init,
        authors.query.mask_refused,
        authors.schedule.initial_choice,
        authors.method.epochs,
    ) == ("random", False, "first", 7)
    without = trials["without"].config
    assert (without.method.backbone, without.method.batch_size, without.method.epochs) == (
        "auto",
        64,
        7,
    )


def test_a_written_share_takes_the_place_of_the_presets_list(trials: dict[str, Trial]) -> None:
    method = trials["authors, own share"].config.method
    assert (method.labelled_share, method.labelled_per_batch) == (0.2, None)


def test_a_trial_keeps_the_values_and_forgets_the_preset(trials: dict[str, Trial]) -> None:
    for trial in trials.values():
        mapping = json.loads(json.dumps(trial_to_mapping(trial)))
        assert "preset" not in mapping["config"]["method"]
        assert trial_from_mapping(mapping, INSTALLED) == trial


def test_each_stage_reads_its_own_entry_of_a_list(trials: dict[str, Trial]) -> None:
    method = trials["authors"].config.method
    plans = [method.stage(stage, 4, has_negatives=True).settings for stage in range(5)]
    assert [plan["labelled_per_batch"] for plan in plans] == [
        (50,),
        (200,),
        (320,),
        (320,),
        (320,),
    ]
    assert "labelled_share" not in plans[1]
    without = trials["without"].config.method
    assert without.stage(2, 4, has_negatives=True) == without.stage(3, 4, has_negatives=True)


@pytest.mark.parametrize(("preset", "dataset"), sorted(PRESETS))
def test_every_preset_is_a_valid_trial(preset: str, dataset: str, tmp_path: Path) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(
        SPEC.partition("cases:")[0]
        .replace("cifar100", dataset)
        .replace("47000", "470")
        .replace("default, epochs: 7", preset)
        + "seeds: [0]\n"
    )
    (trial,) = enumerate_trials(load_spec(str(path))) or []
    for key, value in PRESETS[preset, dataset].items():
        section, name = key.split(".")
        assert getattr(getattr(trial.config, section), name) == value, key


def test_the_published_learning_rate_at_the_end(trials: dict[str, Trial]) -> None:
    from trainers.mean_teacher.losses import cosine_rate

    method = PRESETS["authors", "cifar100"]
    horizon = method["method.cosine_horizon"] * method["method.epochs"]
    assert horizon == pytest.approx(210)
    assert cosine_rate(method["method.learning_rate"], 180, horizon) == pytest.approx(
        0.0099, abs=1e-4
    )


def test_a_data_set_without_published_settings_is_named(tmp_path: Path) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(SPEC.replace("name: cifar100", "name: digits"))
    with pytest.raises(
        SpecError,
        match=(
            r"preset.yaml:5: method.preset = 'default': there are no published settings for the"
            r" data set digits"
        ),
    ):
        load_spec(str(path))
