"""The page: one file, no script, nothing from elsewhere, every name escaped."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import markupsafe
import pytest

from orchestrator.reporting import plots, report, report_files, results
from tests.helpers.on_disk import disk
from tests.helpers.sweep_folder import ABLATIONS, Case, fail, trial_of, write_sweep

HOSTILE = (
    '<script>alert(\'x\')</script>"><img src=x onerror=y> & $\\frac{1}{2}$ </style> &lt; id="a"'
    " url(#b) #010101"
)


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def page_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    cases = [*ABLATIONS, Case(names=(HOSTILE,), quotas=(100, 165), skill=3.0)]
    layout = write_sweep(tmp_path_factory.mktemp("sweep"), cases, name=HOSTILE)
    shutil.rmtree(disk(layout.trial(trial_of(ABLATIONS[3], 1).id)).stages)
    fail(layout, trial_of(ABLATIONS[3], 1), message=f"no memory {HOSTILE}")
    return report_files.write(layout).html.read_text(encoding="utf-8")


def test_a_name_is_text_and_never_markup(page_text: str) -> None:
    page = Page(page_text)
    assert not {"script", "img", "iframe", "object", "link"} & set(page.tags)
    assert page.tags.count("style") == page_text.count("<style")
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in page.text
    assert f"no memory {HOSTILE}" in page.text


def test_the_page_needs_nothing_from_elsewhere(page_text: str) -> None:
    page = Page(page_text)
    links = [
        value
        for name, value in page.attributes
        if name in ("src", "href", "xlink:href", "data", "action")
    ]
    assert [link for link in links if not link.startswith("#")] == []
    assert "@import" not in page_text
    assert re.findall(r"url\((?!#)", page_text) == []
    assert "default-src 'none'" in page_text


def test_ids_are_unique_and_every_reference_has_its_target(page_text: str) -> None:
    page = Page(page_text)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for written in (
        str(markupsafe.escape(HOSTILE)),
        html.escape(HOSTILE),
        html.escape(HOSTILE, quote=False),
    ):
        page_text = page_text.replace(written, "")
    wanted = (
        set(re.findall(r"url\(#([^)]+)\)", page_text))
        | {link[1:] for link in page.values("xlink:href")}
        | set(page.values("aria-labelledby"))
    )
    assert wanted <= set(ids)
    assert wanted


def test_plots_take_the_colours_of_the_page(page_text: str) -> None:
    stand_ins = (plots.INK, plots.MUTED, plots.RULE, plots.ACCENT, plots.WARM, plots.PAPER)
    tags = "".join(re.findall(r"<[^>]*>", page_text))
    assert [colour for colour in stand_ins if colour in tags] == []
    assert "var(--accent)" in page_text
    assert "DejaVu" not in page_text


def test_the_page_has_every_number_that_matters(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path)
    page = Page(report_files.write(layout).html.read_text(encoding="utf-8"))
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    found = report.build(results.load(layout))
    for row in found["rows"]:
        assert row["label"] in text
        assert f"{row['test']['mean']:.1f} ± {row['test']['std']:.1f}" in text
        assert " → ".join(f"{stage:.1f}" for stage in row["test_stages"]) in text
    assert "break-even 30.1 %" in text
    assert "highest validation" in text and "tied with the highest" in text
    assert "never used to choose" in text
    # Three plots, each for a wide and for a narrow page.
    assert page.tags.count("svg") == 6


def test_a_dollar_sign_makes_no_formula(tmp_path: Path) -> None:
    page = Page(
        report_files.write(
            write_sweep(tmp_path, [ABLATIONS[0], Case(names=("$\\frac{1}{2}$ split",))])
        ).html.read_text(encoding="utf-8")
    )
    # In the first sentence, two tables, the rounds, and three plots of two widths.
    assert page.text.count("$\\frac{1}{2}$ split") >= 3 + 6


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_few_seeds_and_few_rows_make_a_page(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    for number, cases in enumerate((ABLATIONS[:1], ABLATIONS[1:2], ABLATIONS[:2])):
        assert "<svg" in report_files.write(
            write_sweep(tmp_path / str(number), cases, seeds)
        ).html.read_text(encoding="utf-8")


def test_a_long_search_draws_the_best_and_says_how_many_it_left_out(tmp_path: Path) -> None:
    drawn = [
        Case(
            names=(), quotas=(100 + number, 165 - number), settings={"schedule.split": [number, 1]}
        )
        for number in range(40)
    ]
    page = Page(
        report_files.write(
            write_sweep(
                tmp_path, drawn, seeds=(0,), search={"algorithm": "random", "num_candidates": 40}
            )
        ).html.read_text(encoding="utf-8")
    )
    assert "10 further rows are not drawn" in page.text
    assert "28 further rows are drawn only in grey" in page.text


def test_a_very_long_search_has_a_page_of_bounded_size(tmp_path: Path) -> None:
    drawn = [
        Case(
            names=(),
            quotas=(100, 165),
            settings={"schedule.split": [number, 1]},
            method={"weight_decay": number / 1e4},
        )
        for number in range(130)
    ]
    layout = write_sweep(
        tmp_path, drawn, seeds=(0,), search={"algorithm": "random", "num_candidates": 130}
    )
    text = report_files.write(layout).html.read_text(encoding="utf-8")
    assert (
        "88 further rows are drawn only in grey" in text and "30 further rows are not drawn" in text
    )
    curves = text[text.index("<h2>Accuracy against bits") : text.index("<h2>Were the questions")]
    # Twelve panels of two widths with a hundred grey curves each, and no more for 130 rows than for
    # a hundred.
    assert curves.count("<path") < 2 * 12 * (100 + 40)


def test_the_picture_is_a_drawing_by_itself(tmp_path: Path) -> None:
    """A file that any program for pictures opens: the names, sizes and colours are all in it."""
    cases = [*ABLATIONS, Case(names=(HOSTILE,), quotas=(100, 165), skill=3.0)]
    picture = report_files.write(write_sweep(tmp_path, cases, name=HOSTILE)).picture
    assert picture is not None
    text = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.attrib["width"]) > 0 and float(root.attrib["height"]) > 0
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "image", "foreignObject"}
    [title] = root.findall("{http://www.w3.org/2000/svg}title")
    assert title.text and ABLATIONS[0].names[0] in "".join(root.itertext())
    attributes = " ".join(value for element in root.iter() for value in element.attrib.values())
    assert "var(" not in attributes and "#0072b2" in attributes


def test_one_row_is_no_comparison_and_leaves_no_picture(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, ABLATIONS[:1])
    layout.store.put(f"{layout.report}/report.svg", b"of an earlier report", replace=True)
    assert report_files.write(layout).picture is None
    assert not layout.store.has(f"{layout.report}/report.svg")


def test_the_machines_plot_settings_change_nothing(tmp_path: Path) -> None:
    import matplotlib

    layout = write_sweep(tmp_path, ABLATIONS[:3])
    before = report_files.write(layout).html.read_bytes()
    # What is there is not drawn again.
    shutil.rmtree(tmp_path / "report")
    with matplotlib.rc_context(
        {"axes.facecolor": "red", "grid.linestyle": ":", "svg.fonttype": "path"}
    ):
        assert report_files.write(layout).html.read_bytes() == before
        assert matplotlib.rcParams["axes.facecolor"] == "red"
