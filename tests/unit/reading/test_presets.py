"""Presets: published settings as files that a spec extends; what it writes itself goes over them.
And what `method.preset` of earlier versions means in their sweeps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalogue import INSTALLED, load_spec
from orchestrator.sweeps.folder import create, open_sweep
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.config import Spec
from search_spaces.reading.errors import SpecError
from search_spaces.reading.trials import enumerate_trials
from search_spaces.reading.yaml_source import PACKAGED

PRESETS = sorted(
    path.stem
    for path in (PACKAGED / "presets").glob("*.yaml")
    if path.stem.startswith(("default_", "authors_"))
)

REST = """\
name: preset
dataset: {name: DATASET, validation: {from: none}}
budget: {mode: table, questions: 470}
base:
  schedule: {initial_labels_per_class: 30, split: [0.574468, 0.425532]}
seeds: [0]
"""


def load(folder: Path, preset: str, text: str = REST) -> Spec:
    path = folder / "spec.yaml"
    dataset = preset.partition("_")[2]
    path.write_text(f"extends: presets/{preset}.yaml\n{text.replace('DATASET', dataset)}")
    return load_spec(str(path))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_trial(preset: str, tmp_path: Path) -> None:
    assert len(enumerate_trials(load(tmp_path, preset)) or []) == 1


def test_each_data_set_has_both_presets() -> None:
    words = [preset.partition("_") for preset in PRESETS]
    assert {ds for word, _, ds in words if word == "default"} == {
        ds for word, _, ds in words if word == "authors"
    }
    assert len(PRESETS) == 8


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "mini_imagenet", "imagenet"])
def test_the_authors_preset_differs_in_what_is_documented_and_in_nothing_else(
    dataset: str, tmp_path: Path
) -> None:
    default, authors = (load(tmp_path, f"{word}_{dataset}").base for word in ("default", "authors"))
    differing = {key: authors[key] for key in authors if authors[key] != default[key]}
    expected: dict[str, Any] = {
        "method.teacher_init": "random",
        "method.precision": "fp32",
        "schedule.initial_choice": "first",
        "query.mask_refused": False,
    }
    if dataset == "cifar100":
        expected["method.labelled_per_batch"] = [50, 200, 320]
    assert differing == expected


def test_what_is_written_goes_over_a_preset(tmp_path: Path) -> None:
    text = REST.replace("base:\n", "base:\n  method: {epochs: 7, labelled_share: 0.2}\n")
    base = load(tmp_path, "authors_cifar100", text).base
    assert (base["method.epochs"], base["method.batch_size"]) == (7, 512)
    assert (base["method.labelled_share"], base["method.labelled_per_batch"]) == (0.2, None)


def test_each_stage_reads_its_own_entry_of_a_list(tmp_path: Path) -> None:
    (trial,) = enumerate_trials(load(tmp_path, "authors_cifar100")) or []
    plans = [trial.config.method.stage(n, 4, has_negatives=True).settings for n in range(5)]
    assert [plan["labelled_per_batch"] for plan in plans] == [
        (50,),
        (200,),
        (320,),
        (320,),
        (320,),
    ]
    assert "labelled_share" not in plans[1]
    (plain,) = enumerate_trials(load(tmp_path, "default_cifar100")) or []
    method = plain.config.method
    assert method.stage(2, 4, has_negatives=True) == method.stage(3, 4, has_negatives=True)


def test_the_published_learning_rate_at_the_end(tmp_path: Path) -> None:
    from trainers.mean_teacher.losses import cosine_rate

    base = load(tmp_path, "authors_cifar100").base
    horizon = base["method.cosine_horizon"] * base["method.epochs"]
    assert horizon == pytest.approx(210)
    assert cosine_rate(base["method.learning_rate"], 180, horizon) == pytest.approx(
        0.0099, abs=1e-4
    )


# --- of earlier versions

OLD = """\
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
  own batch: {method.batch_size: 400}
seeds: [0]
"""
VARIED = (
    OLD.partition("cases:")[0].replace("cifar100", "imagenet").replace("47000", "977000")
    + "vary:\n"
    "  method.preset: {choice: [default, authors]}\n"
    "  method.momentum: {uniform: [0.5, 0.9]}\n"
    "seeds: [0]\n"
    "search: {algorithm: random, num_candidates: 3}\n"
)

RECORDED = [
    (
        OLD,
        [],
        ["f220e0003a8d", "a43569d8d323", "7863f535dde1", "ec81714dbc7b", "785a47db7439"],
    ),
    (
        OLD,
        ["method.preset=authors"],
        ["a43569d8d323", "7863f535dde1", "ec81714dbc7b", "abe34556a3cf"],
    ),
    (
        OLD,
        ["method.preset=null"],
        ["ec81714dbc7b", "a43569d8d323", "7863f535dde1", "c05413093236"],
    ),
    (VARIED, [], ["e7639d33da06", "68f8e20f318a", "60efd57593a5"]),
]
"""Spec, `--set`, and the trials that version 0.2.0 made of them when it had `method.preset`."""


@pytest.mark.parametrize(("text", "overrides", "ids"), RECORDED)
def test_a_recorded_sweep_with_a_preset_has_the_trials_that_it_had(
    text: str, overrides: list[str], ids: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    spec = load_spec(str(path), overrides, recorded=True)
    assert [trial.id for trial in enumerate_trials(spec) or []] == ids
    layout = SweepLayout.at(tmp_path / "out")
    create(spec, layout, data="0" * 64, engine="inline", device="cpu")
    opened, candidates, _ = open_sweep(layout)
    assert [trial.id for one in candidates for trial in one.trials] == ids
    assert (opened.base, opened.cases, opened.vary) == (spec.base, spec.cases, spec.vary)
    assert opened.keys.catalogue == INSTALLED


@pytest.mark.parametrize(
    ("old", "new", "overrides", "where"),
    [
        ("epochs: 7", "preset: default", [], "spec.yaml:5: method.preset = 'default'"),
        ("one: {}", "one: {method.preset: authors}", [], "spec.yaml:8: method.preset = 'authors'"),
        (
            "seeds:",
            "vary: {method.preset: {choice: [authors]}}\nseeds:",
            [],
            "spec.yaml:9: method.preset",
        ),
        ("one: {}", "one: {}", ["method.preset=authors"], "--set method.preset=authors"),
    ],
)
def test_a_spec_that_names_a_preset_is_told_what_to_write(
    old: str, new: str, overrides: list[str], where: str, tmp_path: Path
) -> None:
    text = """\
name: preset
dataset: {name: cifar100, validation: {from: none}}
budget: {mode: table, questions: 47000}
base:
  method: {name: mean_teacher, epochs: 7}
  schedule: {initial_labels_per_class: 30, split: [1.0]}
cases:
  one: {}
seeds: [0]
"""
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    assert load_spec(str(path)).base["method.epochs"] == 7
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        load_spec(str(path), overrides)
    assert where in str(caught.value)
    assert "write extends: presets/default_DATASET.yaml, or presets/authors" in str(caught.value)
