"""The report's fields and numbers, and which rows are compared and called best."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.reporting import report, report_files, results
from orchestrator.reporting import terminal as report_terminal
from orchestrator.reporting.csv import csv_by_row, csv_by_seed, json_text
from orchestrator.reporting.names import OLD_NAMES
from orchestrator.reporting.words import chain, half_width, headline, interval, mean_std, number
from search_spaces.reading.trials import stage_prefixes
from tests.helpers.on_disk import disk
from tests.helpers.sweep_folder import (
    ABLATIONS,
    LABEL_BITS,
    Case,
    fail,
    records_of,
    trial_of,
    write_records,
    write_sweep,
)

FULL = Case(names=("full labels only",), initial_labels=100, quotas=())
ONE = Case(names=("one stage",), quotas=(265,))
TWO = Case(names=("two stages",))
SEEDS = (0, 1, 2)


def built(
    root: Path, cases: Sequence[Case] = ABLATIONS, seeds: Sequence[int] = SEEDS, **resolved: Any
) -> dict[str, Any]:
    return report.build(results.load(write_sweep(root, cases, seeds, **resolved)))


def changed(
    root: Path,
    cases: Sequence[Case],
    change: Callable[[Case, int, list[dict[str, Any]]], list[dict[str, Any]]],
    **resolved: Any,
) -> dict[str, Any]:
    """The report of a sweep whose records were changed before."""
    layout = write_sweep(root, cases, SEEDS, **resolved)
    for case in cases:
        for seed in SEEDS:
            write_records(layout, trial_of(case, seed), change(case, seed, records_of(case, seed)))
    return report.build(results.load(layout))


def row_of(found: dict[str, Any], case: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if row["case"] == case)


def leaders_of(found: dict[str, Any]) -> list[str]:
    return [row["label"] for row in found["rows"] if row["is_leader"]]


def best_of(found: dict[str, Any]) -> list[str]:
    return [row["label"] for row in found["rows"] if row["is_best"]]


def test_the_documented_fields_are_there(tmp_path: Path) -> None:
    found = json.loads(json.dumps(built(tmp_path)))
    assert {"name", "budget_bits", "rows", "stage_trainings", "failed", "effects"} <= found.keys()
    assert found["stage_trainings"].keys() == {"total", "distinct", "trained", "shared"}
    documented = {
        "case",
        "settings",
        "schedule",
        "n",
        "bits",
        "test_stages",
        "validation",
        "test",
        "test_at_best_validation",
    }
    documented |= {"yes", "no", "wasted", "per_seed"}
    for row in found["rows"]:
        assert documented <= row.keys()
        assert row["schedule"].keys() == {"initial_labels", "quotas", "buys"}
        for name in ("validation", "test", "test_at_best_validation"):
            assert row[name].keys() == {"mean", "std"}
        assert len(row["test_stages"]) == len(row["schedule"]["quotas"]) + 1
        assert [seed["seed"] for seed in row["per_seed"]] == list(SEEDS)
        assert all(
            {"seed", "trial", "bits", "validation", "test", "test_stages"} <= seed.keys()
            for seed in row["per_seed"]
        )


def test_a_row_is_the_mean_over_its_seeds(tmp_path: Path) -> None:
    row = row_of(built(tmp_path, [FULL, TWO]), "two stages")
    records = [records_of(TWO, seed) for seed in SEEDS]
    for stage in range(3):
        assert row["test_stages"][stage] == pytest.approx(
            sum(trial[stage]["test_top1_last"] for trial in records) / 3
        )
    assert row["yes"] == pytest.approx(
        sum(record["yes"] for trial in records for record in trial) / 3
    )
    assert row["bits"] == pytest.approx(20 * LABEL_BITS + 265)
    assert row["rounds"][1]["guess_accuracy"]["mean"] == pytest.approx(
        sum(trial[2]["guess_accuracy"] for trial in records) / 3
    )
    assert row["annotation_hours"] == pytest.approx((20 * 60 + 265 * 2.72) / 3600)
    assert row["validation_bits"] == pytest.approx(100 * LABEL_BITS)


def test_every_name_of_a_candidate_has_its_row_and_the_trials_count_once(tmp_path: Path) -> None:
    found = built(tmp_path, [FULL, Case(names=("two stages", "split 1:1"))])
    first, second = row_of(found, "two stages"), row_of(found, "split 1:1")
    assert first["per_seed"] == second["per_seed"]
    assert found["stage_trainings"]["total"] == 3 * (1 + 3)
    assert sum(found["trials"].values()) == 6


def test_stage_trainings_are_counted_by_configuration(tmp_path: Path) -> None:
    found = built(tmp_path)["stage_trainings"]
    prefixes = [
        key for case in ABLATIONS for seed in SEEDS for key in stage_prefixes(trial_of(case, seed))
    ]
    assert (found["total"], found["distinct"]) == (len(prefixes), len(set(prefixes)))
    assert found["distinct"] < found["total"] == found["trained"] + found["shared"]


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    def shift(case: Case, seed: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            record | {"test_top1_last": 50.0 + 10 * seed + (2.0 if case is TWO else 0.0)}
            for record in records
        ]

    gap = row_of(changed(tmp_path, [FULL, TWO], shift), "two stages")["difference"]["test"]
    # The seeds differ by tens of points; the difference to the baseline is the same in each.
    assert (gap["n"], gap["mean"], gap["std"]) == (3, pytest.approx(2.0), pytest.approx(0.0))


def test_the_baseline_is_the_one_the_spec_names(tmp_path: Path) -> None:
    assert [
        row["label"] for row in built(tmp_path / "a", [FULL, TWO])["rows"] if row["is_baseline"]
    ] == ["full labels only"]
    found = built(tmp_path / "b", [FULL, TWO], baseline="two stages")
    assert [row["label"] for row in found["rows"] if row["is_baseline"]] == ["two stages"]
    assert row_of(found, "two stages")["difference"]["test"] is None
    assert row_of(found, "full labels only")["difference"]["test"]["n"] == 3


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    found = built(tmp_path, [FULL, TWO], seeds=(7,))
    assert all(row["test"]["std"] is None for row in found["rows"])
    gap = row_of(found, "two stages")["difference"]["test"]
    assert (gap["n"], gap["std"], gap["low"]) == (1, None, None)


def spend(bits: float) -> Callable[[Case, int, list[dict[str, Any]]], list[dict[str, Any]]]:
    """The case `two stages` spends `bits` fewer than its budget, in one of its seeds, and is the
    best of all.
    """

    def change(case: Case, seed: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if case is not TWO:
            return records
        left = bits if seed == 1 else 0.0
        labels = 20 * LABEL_BITS
        last = {
            "labels": labels,
            "questions": TWO.budget_bits - labels - left,
            "total": TWO.budget_bits - left,
        }
        return [
            *records[:-1],
            records[-1]
            | {
                "bits": last,
                "unspent": round(left),
                "val_top1": 100.0,
                "test_top1_last": 100.0,
            },
        ]

    return change


def test_rows_within_one_percent_of_the_budget_are_compared(tmp_path: Path) -> None:
    found = changed(tmp_path, [FULL, ONE, TWO], spend(0.0099 * TWO.budget_bits))
    assert row_of(found, "two stages")["comparable"]
    assert leaders_of(found) == ["two stages"]


def test_rows_that_spent_less_stand_apart_and_never_lead(tmp_path: Path) -> None:
    found = changed(tmp_path, [FULL, ONE, TWO], spend(0.0101 * TWO.budget_bits))
    row = row_of(found, "two stages")
    assert not row["comparable"]
    assert "left over" in row["reason"]
    assert row["difference"]["validation"] is None
    assert leaders_of(found) == ["one stage"]
    assert [found["rows"][item["row"]]["label"] for item in found["apart"]] == ["two stages"]


def test_a_budget_that_no_row_can_use_up_makes_no_rows_equal(tmp_path: Path) -> None:
    """One percent of a million bits is more than all that these rows spent."""
    cases = [
        Case(names=("much",), budget_bits=1e6),
        Case(names=("as much",), quotas=(130, 134), budget_bits=1e6),
        Case(names=("less",), quotas=(100, 100), budget_bits=1e6),
    ]
    found = built(tmp_path, cases)
    comparable = {row["label"]: row["comparable"] for row in found["rows"]}
    assert comparable == {"much": True, "as much": True, "less": False}


def test_a_papers_integers_are_one_comparison(tmp_path: Path) -> None:
    # Budgets that differ by 0.74%, as 10,000 labels and 3,000 labels with 47,000 questions of
    # CIFAR-100 do.
    found = built(
        tmp_path,
        [
            FULL,
            Case(
                names=("a little more",), quotas=(135, 132), budget_bits=100 * LABEL_BITS * 1.0074
            ),
        ],
    )
    assert [comparison["rows"] for comparison in found["comparisons"]] == [[1, 0]]


def test_each_budget_is_a_comparison_of_its_own(tmp_path: Path) -> None:
    cases = [
        Case(
            names=("full labels only",),
            initial_labels=100,
            quotas=(),
            settings={"budget.bits": 332.2},
        ),
        Case(names=("two stages",), settings={"budget.bits": 332.2}),
        Case(
            names=("full labels only",),
            initial_labels=50,
            quotas=(),
            budget_bits=50 * LABEL_BITS,
            settings={"budget.bits": 166.1},
        ),
        Case(
            names=("two stages",),
            settings={"budget.bits": 166.1},
            budget_bits=50 * LABEL_BITS,
            quotas=(50, 49),
        ),
    ]
    found = built(tmp_path, cases)
    members = [
        {found["rows"][index]["budget_bits"] for index in comparison["rows"]}
        for comparison in found["comparisons"]
    ]
    assert members == [{100 * LABEL_BITS}, {50 * LABEL_BITS}]
    assert sum(row["is_baseline"] for row in found["rows"]) == 2
    assert all(
        row["is_baseline"] or row["difference"]["validation"]["n"] == 3 for row in found["rows"]
    )
    assert len({row["label"] for row in found["rows"]}) == 4


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(numbers=st.lists(st.floats(0, 100), min_size=200, max_size=200))
def test_no_test_accuracy_changes_what_is_chosen(tmp_path: Path, numbers: list[float]) -> None:
    cases = [*ABLATIONS[:6], Case(names=("left over",), quotas=(100, 100))]
    draw = iter(numbers)

    def other_test_accuracies(
        case: Case, seed: int, records: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        return [
            record | {"test_top1_last": next(draw), "test_top1_at_best_val": next(draw)}
            for record in records
        ]

    before, after = (
        built(tmp_path / "a", cases),
        changed(tmp_path / "b", cases, other_test_accuracies),
    )
    assert [comparison | {} for comparison in before["comparisons"]] == after["comparisons"]
    assert leaders_of(before) == leaders_of(after) != []
    assert [row["tied_with_best"] for row in before["rows"]] == [
        row["tied_with_best"] for row in after["rows"]
    ]
    assert before["apart"] == after["apart"]


def told(
    validation: dict[str, float], spread: float = 1.0
) -> Callable[[Case, int, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Validation accuracies by case, and `spread` points more for each seed."""

    def tell(case: Case, seed: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            *records[:-1],
            records[-1]
            | {
                "val_top1": validation[case.names[0]] + spread * seed,
                "test_top1_last": 50.0,
            },
        ]

    return tell


def test_the_row_with_the_highest_validation_accuracy_leads(tmp_path: Path) -> None:
    found = changed(
        tmp_path,
        [FULL, TWO, ONE],
        told({"one stage": 91.0, "two stages": 90.0, "full labels only": 20.0}),
    )
    assert leaders_of(found) == ["one stage"]
    assert [found["rows"][index]["label"] for index in found["comparisons"][0]["rows"]] == [
        "one stage",
        "two stages",
        "full labels only",
    ]
    # One point in every seed: the seeds' spread is nothing, and 100 validation images cannot tell
    # one point.
    assert found["comparisons"][0]["not_separated"] == [1]
    assert [row["tied_with_best"] for row in found["rows"]] == [False, True, False]
    assert best_of(found) == []
    assert (
        "No row is called best: 1 of the 2 other candidates is not significantly lower. With 3"
        " seeds only large" in headline(found)
    )


def test_a_row_that_every_other_is_told_apart_from_is_best(tmp_path: Path) -> None:
    found = changed(
        tmp_path,
        [FULL, TWO, ONE],
        told({"one stage": 95.0, "two stages": 60.0, "full labels only": 20.0}),
    )
    assert best_of(found) == leaders_of(found) == ["one stage"]
    assert found["comparisons"][0]["no_best"] is None
    assert "It is the best row" in headline(found)


def test_one_seed_makes_no_best_row(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [FULL, TWO], seeds=(0,))
    for case, accuracy in ((FULL, 10.0), (TWO, 90.0)):
        write_records(
            layout,
            trial_of(case, 0),
            [record | {"val_top1": accuracy} for record in records_of(case, 0)],
        )
    found = report.build(results.load(layout))
    assert (leaders_of(found), best_of(found)) == (["two stages"], [])
    assert row_of(found, "full labels only")["tied_with_best"]
    assert "one seed has no error bar" in headline(found)


def test_three_equal_differences_are_not_told_apart(tmp_path: Path) -> None:
    def shift(case: Case, seed: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            record | {"test_top1_last": 50.1 + 10.7 * seed + (0.7 if case is TWO else 0.0)}
            for record in records
        ]

    gap = row_of(changed(tmp_path, [FULL, TWO], shift), "two stages")["difference"]["test"]
    assert gap["high"] - gap["low"] == pytest.approx(0.0, abs=1e-6)
    assert (gap["p"], gap["p_holm"], gap["told_apart"]) == (None, None, False)


def test_differences_of_one_table_are_corrected_for_their_number(tmp_path: Path) -> None:
    rows = [row for row in built(tmp_path)["rows"] if row["difference"]["test"] is not None]
    # Three names of one candidate are one comparison.
    by_candidate = {row["candidate"]: row["difference"]["test"] for row in rows}
    ordered = sorted(by_candidate.values(), key=lambda gap: gap["p"])
    assert len(ordered) == 11
    largest = 0.0
    for place, gap in enumerate(ordered):
        largest = max(largest, min(1.0, (11 - place) * gap["p"]))
        assert gap["p_holm"] == pytest.approx(largest)
        assert gap["told_apart"] == (largest <= 0.05)
    assert any(gap["p"] <= 0.05 < gap["p_holm"] for gap in ordered)


def test_a_tie_goes_to_fewer_annotation_hours(tmp_path: Path) -> None:
    found = changed(
        tmp_path,
        [FULL, TWO],
        lambda case, seed, records: [record | {"val_top1": 90.0} for record in records],
    )
    assert leaders_of(found) == ["two stages"]
    assert found["comparisons"][0]["not_separated"] == [0]


def test_without_validation_no_row_is_best(tmp_path: Path) -> None:
    found = changed(
        tmp_path,
        [FULL, TWO],
        lambda case, seed, records: [record | {"val_top1": None} for record in records],
    )
    assert leaders_of(found) == []
    assert "no validation accuracy" in headline(found)


def test_a_row_with_fewer_seeds_does_not_lead(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [FULL, ONE, TWO])
    for seed in SEEDS:
        last = records_of(TWO, seed)
        write_records(layout, trial_of(TWO, seed), [*last[:-1], last[-1] | {"val_top1": 100.0}])
    assert leaders_of(report.build(results.load(layout))) == ["two stages"]
    shutil.rmtree(disk(layout.trial(trial_of(TWO, 1).id)).stages)
    fail(layout, trial_of(TWO, 1))
    found = report.build(results.load(layout))
    row = row_of(found, "two stages")
    assert (row["n"], row["comparable"], row["difference"]["validation"]["n"]) == (2, True, 2)
    assert leaders_of(found) == ["one stage"]
    assert [(item["seed"], item["kind"]) for item in found["failed"]] == [(1, "TrainingFailed")]


def test_a_trial_that_got_through_in_the_end_has_not_failed(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [FULL, TWO])
    fail(layout, trial_of(TWO, 0))
    found = report.build(results.load(layout))
    assert found["failed"] == []
    assert found["trials"]["finished"] == 6


def test_a_sweep_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, done=False)
    found = report.build(results.load(layout))
    assert found["comparisons"] == []
    assert [row["n"] for row in found["rows"]] == [0] * 14
    assert found["rows"][0]["validation"] == {"mean": None, "std": None}
    assert "No trial has finished yet." in report_files.write(layout).html.read_text()


def test_a_search_has_rows_without_cases(tmp_path: Path) -> None:
    varied = (
        {"schedule.split": [0.5, 0.5], "method.consistency_weight": weight}
        for weight in (136.0, 2.5)
    )
    drawn = [
        Case(names=(), quotas=(130 + number, 135 - number), settings=settings)
        for number, settings in enumerate(varied)
    ]
    found = built(tmp_path, drawn, search={"algorithm": "random", "num_candidates": 2, "seed": 0})
    assert [row["case"] for row in found["rows"]] == [None, None]
    assert [row["settings"] for row in found["rows"]] == [case.settings for case in drawn]
    assert found["rows"][0]["label"] == "#1 split 0.5/0.5, consistency_weight 136"
    assert found["baseline"] is None
    assert len(leaders_of(found)) == 1


def test_equal_folders_give_equal_files(tmp_path: Path) -> None:
    first, second = (
        report_files.write(write_sweep(tmp_path / name, ABLATIONS[:5])) for name in ("a", "b")
    )
    for one, other in zip(vars_of(first), vars_of(second), strict=True):
        assert one.read_bytes() == other.read_bytes() != b""


def vars_of(paths: report_files.ReportPaths) -> list[Path]:
    return [getattr(paths, name) for name in paths.__dataclass_fields__]


def test_the_csv_files_have_a_line_per_seed_and_per_row(tmp_path: Path) -> None:
    found = built(tmp_path)
    seeds, rows = (
        list(csv.DictReader(io.StringIO(text))) for text in (csv_by_seed(found), csv_by_row(found))
    )
    assert (len(seeds), len(rows)) == (14 * 3, 14)
    for line, row in zip(rows, found["rows"], strict=True):
        assert float(line["validation_mean"]) == row["validation"]["mean"]
        assert int(line["n"]) == row["n"]
        gap = row["difference"]["test"]
        assert line["difference_test_low"] == ("" if gap is None else repr(gap["low"]))
    assert {line["case"] for line in seeds} == {row["case"] for row in found["rows"]}


def test_names_are_no_markup_in_any_form(tmp_path: Path) -> None:
    name = "<script>alert(1)</script> | [red]x[/red] $a_1$ **b**"
    layout = write_sweep(tmp_path, [FULL, Case(names=(name,))])
    fail(
        layout,
        trial_of(Case(names=("x",), quotas=(1, 2)), 0),
        message="never read: not one of the trials",
    )
    text = report_files.write(layout).markdown.read_text()
    assert "<script" not in text
    bars = [
        len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")
    ]
    assert set(bars[:4]) == {10}
    out = Console(width=200, file=io.StringIO(), record=True)
    out.print(report.render(report.build(results.load(layout))))
    assert name in out.export_text()


def test_the_terminal_table_says_what_the_report_says(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path)
    fail(layout, trial_of(TWO, 0))
    found = report.build(results.load(layout))
    for width in (80, 140):
        out = Console(width=width, file=io.StringIO(), record=True)
        page = tmp_path / ("long" * 40) / "report.html"
        report_terminal.show(out, found, page)
        text = out.export_text()
        for row in found["rows"]:
            assert mean_std(row["validation"]) in text
            assert width < 108 or number(row["annotation_hours"]) in text
        assert "(highest)" in text and "(tied)" in text
        assert "also differs from the baseline: method.nls true → false" in " ".join(text.split())
        assert "(baseline)" in text
        assert f"Report: {page}" in text
        assert max(map(len, text.partition("Report: ")[0].splitlines())) <= width


def test_numbers_are_written_alike_everywhere() -> None:
    assert number(-0.04) == "0.0"
    assert number(-1.25, 1) in ("−1.2", "−1.3")
    assert number(None) == "–"
    assert mean_std({"mean": 94.84, "std": None}) == "94.8"
    assert chain([51.47, 67.82, 73.76]) == "51.5 → 67.8 → 73.8"
    assert (
        interval({"n": 3, "mean": 2.1, "std": 1.0, "low": -0.3, "high": 4.5}) == "+2.1 [−0.3, 4.5]"
    )
    assert half_width({"n": 3, "mean": -2.1, "std": 1.0, "low": -4.5, "high": 0.3}) == "−2.1 ± 2.4"
    assert interval({"n": 1, "mean": 2.1, "std": None, "low": None, "high": None}) == "+2.1"


def test_reading_results_loads_no_heavy_library() -> None:
    code = (
        "import sys, orchestrator.reporting.report, orchestrator.reporting.status,"
        " orchestrator.engines.progress\n"
    )
    code += "print(*sorted({'torch', 'ray', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
        == ""
    )


def test_programs_that_ask_for_the_old_names_get_the_same_numbers(tmp_path: Path) -> None:
    found = built(tmp_path)
    line = json.loads(json_text(found))["rows"][0]
    for name, old in OLD_NAMES.items():
        assert name in line and line[old] == line[name]
    assert line["difference"]["val_top1"] == line["difference"]["validation"]
    [rows, seeds] = (
        list(csv.DictReader(io.StringIO(text))) for text in (csv_by_row(found), csv_by_seed(found))
    )
    old_of = {
        "validation_std": "val_top1_std",
        "difference_test_p": "difference_test_top1_last_p",
        "to_leader_validation_n": "to_leader_val_top1_n",
    }
    for column, old in old_of.items():
        assert [row[old] for row in rows] == [row[column] for row in rows]
    assert [seed["test_top1_at_best_val"] for seed in seeds] == [
        seed["test_at_best_validation"] for seed in seeds
    ]
    assert [seed["stages"] for seed in seeds] == [seed["test_stages"] for seed in seeds]
