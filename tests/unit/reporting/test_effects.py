"""The main effects of a crossed sweep: the answer to "which strategy, how many rounds?"."""

from __future__ import annotations

import csv
import io
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.reporting.csv import csv_by_row, csv_by_seed
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.sweep_folder import (
    FACTS,
    Case,
    records_of,
    trial_of,
    write_correct,
    write_records,
    write_sweep,
)
from tests.unit.reporting.test_report_fairness import build, forms

STRATEGIES = {"random": 0.0, "hard": 1.5, "easy": -4.0}
ROUNDS = {(265,): 0.0, (133, 132): 6.0}
SEEDS = (0, 1, 2, 3)


def crossed(names: tuple[str, ...] = ()) -> list[Case]:
    """Strategies crossed with numbers of rounds."""
    return [
        Case(
            names=names,
            quotas=quotas,
            strategy=strategy,
            settings={"query.strategy": strategy, "schedule.quotas": list(quotas)},
        )
        for strategy, quotas in product(STRATEGIES, ROUNDS)
    ]


def write(
    root: Path, cases: list[Case], *, noise: float = 0.0, images: bool = False
) -> SweepLayout:
    """A sweep whose accuracies are the sum of what each key's value does and of the seed's luck."""
    layout = write_sweep(root, cases, SEEDS)
    draw = np.random.default_rng(0)
    for case in cases:
        for seed in SEEDS:
            value = 70 + STRATEGIES[case.strategy] + ROUNDS[case.quotas] + 2.0 * seed
            value += noise * draw.normal()
            said: dict[str, Any] = {"test_top1_last": value, "val_top1": value - 10}
            if images:
                right = np.arange(FACTS.test_items) < FACTS.test_items * value / 100
                said |= write_correct(layout, case, seed, draw.permuted(right))
            *before, last = records_of(case, seed)
            write_records(layout, trial_of(case, seed), [*before, last | said])
    return layout


def effect(found: dict[str, Any], key: str) -> dict[Any, dict[str, Any]]:
    """Value -> its line, of a varied key."""
    (one,) = [effect for effect in found["effects"] if effect["key"] == key]
    return {str(line["value"]): line for line in one["values"]}


def test_a_keys_effect_is_what_it_adds_whatever_the_other_keys_and_seeds_do(tmp_path: Path) -> None:
    found = build(write(tmp_path, crossed()))
    lines = effect(found, "query.strategy")
    assert [name for name, line in lines.items() if line["is_highest"]] == ["hard"]
    for name, adds in STRATEGIES.items():
        gap = lines[name]["difference"]
        if name == "hard":
            assert gap is None
        else:
            assert gap["mean"] == pytest.approx(adds - STRATEGIES["hard"])
            # The rounds' six points and the seeds' two are no noise of a paired difference.
            assert gap["high"] - gap["low"] == pytest.approx(0.0, abs=1e-6)
    lines = effect(found, "schedule.quotas")
    assert lines["[265]"]["difference"]["mean"] == pytest.approx(-6)
    assert lines["[133, 132]"]["test"]["mean"] == pytest.approx(
        np.mean([70 + adds + 6 + 2 * seed for adds in STRATEGIES.values() for seed in SEEDS])
    )


def test_effects_are_told_apart_after_correction_for_all_of_them(tmp_path: Path) -> None:
    found = build(write(tmp_path, crossed(), noise=0.4))
    gaps = [
        line["difference"]
        for one in found["effects"]
        for line in one["values"]
        if line["difference"] is not None
    ]
    assert len(gaps) == 3
    assert min(gap["p_holm"] for gap in gaps) == pytest.approx(3 * min(gap["p"] for gap in gaps))
    assert {gap["told_apart"] for gap in gaps} == {gap["p_holm"] <= 0.05 for gap in gaps}


def test_the_interval_holds_the_test_images_where_their_files_are_there(tmp_path: Path) -> None:
    found = build(write(tmp_path / "files", crossed(), images=True))
    for one in found["effects"]:
        for line in one["values"]:
            if line["difference"] is not None:
                assert line["difference"]["sources"] == "seeds and images"
                assert line["difference"]["low"] < line["difference"]["mean"]
    lines = effect(found, "schedule.quotas")
    means = {name: line["test"]["mean"] for name, line in lines.items()}
    assert lines["[265]"]["difference"]["mean"] == pytest.approx(
        means["[265]"] - means["[133, 132]"]
    )


def test_a_setting_without_every_value_is_left_out_of_the_average(tmp_path: Path) -> None:
    cases = crossed()
    # Without easy questions in two rounds, a plain mean of `easy` would lack the six points.
    found = build(write(tmp_path, [c for c in cases if (c.strategy, len(c.quotas)) != ("easy", 2)]))
    (one,) = [one for one in found["effects"] if one["key"] == "query.strategy"]
    assert (one["settings"], one["left_out"]) == (1, 1)
    assert effect(found, "query.strategy")["easy"]["difference"]["mean"] == pytest.approx(-5.5)


@pytest.mark.parametrize("kept", ["one key", "no two rows that differ in one key alone"])
def test_nothing_is_averaged_where_nothing_was_crossed(tmp_path: Path, kept: str) -> None:
    cases = crossed()
    chosen = [cases[0], cases[2]] if kept == "one key" else [cases[0], cases[3]]
    assert build(write(tmp_path, chosen))["effects"] == []


def test_cases_are_a_key_like_the_varied_ones(tmp_path: Path) -> None:
    cases = [
        Case(
            names=("one round" if len(quotas) == 1 else "two rounds",),
            quotas=quotas,
            strategy=strategy,
            settings={"query.strategy": strategy},
        )
        for strategy, quotas in product(STRATEGIES, ROUNDS)
    ]
    assert effect(build(write(tmp_path, cases)), "case")["one round"]["difference"][
        "mean"
    ] == pytest.approx(-6)


def test_every_form_says_it(tmp_path: Path) -> None:
    found = build(write(tmp_path, crossed(), noise=0.2))
    for name, text in forms(found).items():
        for said in ("query.strategy", "schedule.quotas", "over 2 settings", "over 3 settings"):
            assert said in text, (name, said)
    for table in (csv_by_row(found), csv_by_seed(found)):
        lines = list(csv.DictReader(io.StringIO(table)))
        assert {line["query.strategy"] for line in lines} == set(STRATEGIES)
        assert {line["schedule.quotas"] for line in lines} == {"265", "133 132"}
