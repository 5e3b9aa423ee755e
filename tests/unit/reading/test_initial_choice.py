"""How a spec asks for initial labels, what that is planned to cost, and what is refused."""

from __future__ import annotations

import io
import json
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

CHOICE = "schedule.initial_choice"


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
