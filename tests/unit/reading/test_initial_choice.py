"""How a spec asks for initial labels, what that is planned to cost, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.catalogue import INSTALLED, load_spec
from orchestrator.commands.plan import plan, print_plan
from search_spaces.reading.config import Spec
from search_spaces.reading.errors import SpecError
from search_spaces.reading.trials import (
    make_trial,
    stage_prefixes,
    trial_from_mapping,
    trial_to_mapping,
)
from tests.helpers.packages import install
from tests.helpers.small_sweep import SPEC as SMALL
from tests.helpers.small_sweep import write_data

CHOICE = "schedule.initial_choice"

TOYS = """
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Near:
    name: ClassVar[str] = "near"
    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    starts_cold: ClassVar[bool] = True

@dataclass(frozen=True)
class Far:
    name: ClassVar[str] = "far"
    needs: ClassVar[tuple[str, ...]] = ("margin",)

@dataclass(frozen=True)
class Odd:
    name: ClassVar[str] = "odd"
    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    starts_cold: ClassVar[bool] = True
    reach: int
"""


@pytest.fixture(scope="module")
def smoke() -> Spec:
    return load_spec("smoke.yaml", ["cases={}"])


def trial(spec: Spec, choice: str, seed: int = 0, **changes: Any) -> Any:
    return make_trial(
        spec,
        {CHOICE: choice, **{key.replace("__", "."): value for key, value in changes.items()}},
        seed,
    )


def test_uniform_has_the_quotas_of_random(smoke: Spec) -> None:
    assert trial(smoke, "uniform").schedule == trial(smoke, "random").schedule
    assert trial(smoke, "uniform").id != trial(smoke, "random").id


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    folder = tmp_path_factory.mktemp("vectors")
    write_data(folder / "features.npz")
    here = SMALL.replace("features.npz", str(folder / "features.npz"))
    (folder / "spec.yaml").write_text(here)
    return load_spec(str(folder / "spec.yaml"), ["cases={}"])


def test_a_strategy_that_starts_cold_has_the_quotas_of_uniform(vectors: Spec) -> None:
    names = {trial(vectors, name).id: name for name in ("typiclust", "probcover", "max_herding")}
    assert len({*names, trial(vectors, "uniform").id}) == 4
    for name in names.values():
        found, uniform = trial(vectors, name), trial(vectors, "uniform")
        assert (found.schedule, found.bits) == (uniform.schedule, uniform.bits)
        assert (
            trial_from_mapping(json.loads(json.dumps(trial_to_mapping(found))), INSTALLED) == found
        )
        # The choice is varied apart from the strategy of the rounds.
        assert found.config.query.strategy.name == "random"
        assert found.config.schedule.initial_query.name == name
        choice = found.config.schedule.choice
        assert choice.reads_features
        assert replace(choice, reads_features=False) == uniform.config.schedule.choice
        assert stage_prefixes(found)[0] != stage_prefixes(uniform)[0]


def test_a_strategy_is_refused_for_pictures_and_one_that_asks_a_model_for_all(
    tmp_path: Path,
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"extends: smoke.yaml\nbase:\n  {CHOICE}: typiclust\n")
    with pytest.raises(SpecError) as caught:
        load_spec(str(spec), ["cases={}"])
    said = str(caught.value)
    assert "typiclust looks at feature vectors, and digits holds images" in said
    assert said.startswith(f"{spec}:3: {CHOICE} = 'typiclust'")
    with pytest.raises(SpecError) as caught:
        load_spec("smoke.yaml", [f"{CHOICE}=margin"])
    assert "priced_balanced, typiclust, probcover, max_herding" in str(caught.value)


def test_a_strategy_of_another_package_is_a_choice_where_it_starts_cold(
    vectors: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "".join(f"{name.lower()} = cold_toys:{name}\n" for name in ("Near", "Far", "Odd"))
    install(tmp_path, "cold_toys", TOYS, f"[orchestrate.queries]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = str(vectors.source)
    chosen = load_spec(spec, ["cases={}", f"{CHOICE}=near"])
    assert make_trial(chosen, {}, 0).config.schedule.initial_query.name == "near"
    for name, says in (
        ("far", "strategy far chooses by what a model says"),
        ("odd", "strategy odd has no default of reach"),
    ):
        with pytest.raises(SpecError, match=says) as caught:
            load_spec(spec, ["cases={}", f"{CHOICE}={name}"])
        assert f"{CHOICE} = '{name}'" in str(caught.value)


def test_priced_balanced_is_planned_with_what_is_expected(smoke: Spec) -> None:
    found = trial(smoke, "priced_balanced")
    # 2 of each of 10 classes of 110 images.
    assert found.schedule.initial_labels == 45
    assert sum(found.schedule.quotas) == 182
    assert found.budget_bits - 1 < found.bits <= found.budget_bits
    assert trial_from_mapping(json.loads(json.dumps(trial_to_mapping(found))), INSTALLED) == found


def test_the_shares_and_not_the_expected_quotas_make_a_priced_trial(smoke: Spec) -> None:
    halves, nearly = (
        trial(smoke, "priced_balanced", schedule__split=split)
        for split in ([0.5, 0.5], [0.501, 0.499])
    )
    assert halves.schedule == nearly.schedule
    assert halves.candidate != nearly.candidate
    assert (
        trial(smoke, "random", schedule__split=[0.5, 0.5]).candidate
        == trial(smoke, "random", schedule__split=[0.501, 0.499]).candidate
    )


def test_stages_are_shared_where_the_draws_are_and_parted_where_the_quotas_may_be(
    smoke: Spec,
) -> None:
    base = stage_prefixes(trial(smoke, "priced_balanced"))
    for changes in ({"schedule__split": [0.501, 0.499]}, {"budget__bits": 332.0}):
        other = stage_prefixes(trial(smoke, "priced_balanced", **changes))
        assert other[0] == base[0]
        assert set(other[1:]).isdisjoint(base)
    assert stage_prefixes(trial(smoke, "uniform"))[0] not in (
        base[0],
        stage_prefixes(trial(smoke, "random"))[0],
    )
    # A share that is expected to come to nothing may come to a question.
    small = trial(smoke, "priced_balanced", schedule__split=[0.999, 0.001])
    assert small.schedule.quotas[1] == 0
    assert len(set(stage_prefixes(small))) == 3
    assert (
        len(set(stage_prefixes(trial(smoke, "priced_balanced", schedule__split=[1.0, 0.0])))) == 2
    )


@pytest.mark.parametrize(
    ("choice", "overrides", "says"),
    [
        (
            "priced_balanced",
            ["budget={mode: table, questions: 100, full_labels: null}"],
            "priced_balanced draws it",
        ),
        ("priced_balanced", ["schedule.split=[]"], "no round spends what they leave"),
        (
            "priced_balanced",
            ["budget.full_labels=40"],
            (
                "priced_balanced is expected to draw 45 labels, which cost 149.487 bits, and the"
                " budget is 132.877"
            ),
        ),
        (
            "priced_balanced",
            ["budget.full_labels=2000", "schedule.initial_labels_per_class=107"],
            "the smallest class of digits has 106 images",
        ),
        (
            "uniform",
            ["budget.full_labels=2000", "schedule.initial_labels_per_class=111"],
            "1110 initial labels are asked for, and digits has 1100",
        ),
        ("unifrom", [], 'did you mean "uniform"'),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(
    choice: str, overrides: list[str], says: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec("smoke.yaml", ["cases={}", f"{CHOICE}={choice}", *overrides])
    assert says in str(caught.value)


def test_blind_draws_may_take_more_of_a_class_than_the_smallest_has() -> None:
    load_spec(
        "smoke.yaml",
        [
            "cases={}",
            f"{CHOICE}=uniform",
            "budget.full_labels=1110",
            "schedule.initial_labels_per_class=110",
        ],
    )


def test_the_plan_shows_expectation_and_range_of_priced_draws_alone() -> None:
    spec = load_spec(
        "smoke.yaml", ["cases={random: {}, priced: {schedule.initial_choice: priced_balanced}}"]
    )
    rows = {row["cases"][0]: row for row in plan(spec)["trials"]}
    assert rows["random"]["draws"] is None
    assert rows["priced"]["draws"] == {"expected": 45, "low": 30, "high": 70}
    console = Console(width=140, file=io.StringIO(), record=True)
    print_plan(plan(spec), console)
    text = console.export_text()
    assert "~45 (30 to 70)" in text and "~91 + ~91" in text and "~182" in text
    assert "133 + 132" in text
    assert "if classes are equally large" in text
