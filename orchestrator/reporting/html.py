"""The report as one HTML file that needs nothing else: no script, no network, plots as inline SVG.

This module says what stands on the page; templates/ says where, report.css how it looks and
theme.css in which colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from orchestrator.reporting import plots
from orchestrator.reporting.effects import EFFECT_HEAD, effect_tables
from orchestrator.reporting.orderings import ORDERING_HEAD, ordering_cells
from orchestrator.reporting.words import (
    ANCHOR_HEAD,
    NOT_COMPARED,
    WORTH_HEAD,
    anchor_cells,
    apart,
    asks,
    break_even_line,
    chain,
    count,
    differing,
    failure_line,
    figure,
    figures,
    headline,
    interval,
    legend,
    marks,
    mean_std,
    measured,
    notes,
    number,
    prior_lines,
    protocols,
    reference,
    schedule,
    seconds_in_words,
    shown,
    table_caption,
    worth,
    yes_no,
)

WIDE, NARROW = 960, 358
"""Widths that each plot is drawn for, in CSS pixels; the page shows the one that fits."""
MOST_DRAWN: Final = 30
MOST_CURVES: Final = 12
MOST_GREY: Final = 100
"""Every panel has all of the grey curves: a search's thousand would take a quarter of a minute to
draw, and show a grey field.
"""
MOST_GUESSES: Final = 16

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]
"""Its title, and what it says of a row."""


@dataclass(frozen=True, slots=True)
class TableRow:
    label: str
    cells: Sequence[str]
    kind: str = ""
    """`best`, `base` or neither: how the row is set off."""
    marks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Table:
    head: Sequence[str]
    """Titles of the columns, the first above the labels."""
    rows: Sequence[TableRow]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot, drawn for a wide and for a narrow page."""

    name: str
    caption: str
    wide: Markup
    narrow: Markup


def html(report: Mapping[str, Any]) -> str:
    """Renders the page. Everything that a user named is escaped; equal reports give equal pages."""
    report = shown(report)
    table = report["rows"]
    main = next((comparison for comparison in report["comparisons"] if comparison["main"]), None)
    drawn = [] if main is None else [table[index] for index in main["rows"]]
    page = _environment().get_template("report.html")
    return page.render(
        css=Markup(_packaged("theme.css") + _packaged("report.css")),  # noqa: S704  # our own
        name=report["name"],
        headline=headline(report),
        facts=_facts(report),
        comparisons=[
            _comparison(report, comparison, index)
            for index, comparison in enumerate(report["comparisons"])
        ],
        orderings=_orderings(report),
        ordering_rule=report["rules"]["ordering"],
        effects=_effects(report),
        effect_rule=report["rules"]["effect"],
        not_compared=NOT_COMPARED,
        apart=apart(report) if report["apart"] else [],
        curves=_curves(drawn, report["metric"]),
        guesses=_guesses(drawn, report["break_even"]),
        prior=prior_lines(report),
        bought=_bought([row for row in table if row["n"]]),
        published=_published(report),
        failed=[failure_line(item) for item in report["failed"]],
        notes=notes(report),
    )


def _orderings(report: Mapping[str, Any]) -> Table | None:
    cells = [ordering_cells(report, item) for item in report["orderings"]]
    if not cells:
        return None
    return Table(ORDERING_HEAD, [TableRow(first, rest) for first, *rest in cells])


def _effects(report: Mapping[str, Any]) -> list[tuple[str, Table]]:
    return [
        (
            over,
            Table(
                [key, *EFFECT_HEAD],
                [
                    TableRow(value, cells, marks=["highest"] if highest else [])
                    for highest, (value, *cells) in lines
                ],
            ),
        )
        for key, over, lines in effect_tables(report)
    ]


def picture(report: Mapping[str, Any]) -> str | None:
    """Draws the main comparison as an SVG file that needs nothing else; None if no rows are
    compared. Equal reports give equal files.
    """
    report = shown(report)
    main = next((comparison for comparison in report["comparisons"] if comparison["main"]), None)
    if main is None or len(main["rows"]) < 2:
        return None
    rows = _with_baseline([report["rows"][index] for index in main["rows"]], MOST_DRAWN)
    drawing = plots.equal_bits(rows, WIDE, "equal-bits")
    return plots.as_file(drawing, title=headline(report), css=_packaged("theme.css"))


def _packaged(name: str) -> str:
    return resources.files("orchestrator.reporting").joinpath(name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    return environment


def _unbroken(text: str) -> Markup:
    """Keeps numbers together with their signs and units."""
    return Markup(  # noqa: S704  # escaped
        str(escape(text))
        .replace(" ± ", "&nbsp;±&nbsp;")
        .replace(" %", "&nbsp;%")
        .replace("n = ", "n&nbsp;=&nbsp;")
    )


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    trials, data = report["trials"], report["dataset"]
    state = f"{trials['finished']} of {sum(trials.values())} finished" + (
        f", {trials['failed']} failed" if trials["failed"] else ""
    )
    facts = [("Trials", state), ("Budget of a trial", f"{number(report['budget_bits'])} bits")]
    if data is not None:
        facts.insert(
            0,
            (
                "Data",
                (
                    f"{data['name']}: {data['num_classes']}"
                    f" {'categories, several an item' if report['several_labels'] else 'classes'},"
                    f" {data['train_items']:,}"
                    f" training and {data['test_items']:,} test items"
                ),
            ),
        )
    trainings = report["stage_trainings"]
    facts.append(
        ("Stage trainings", f"{trainings['trained']} trained, {trainings['shared']} shared")
    )
    made_on = " · ".join(", ".join(values) for values in report["made_on"].values() if values)
    if made_on:
        facts.append(("Trained on", made_on))
    return facts


def _comparison(
    report: Mapping[str, Any], comparison: Mapping[str, Any], index: int
) -> Mapping[str, Any]:
    rows = [report["rows"][number_] for number_ in comparison["rows"]]
    low, high = comparison["bits"]
    spent = number(high) if number(low) == number(high) else f"{number(low)} to {number(high)}"
    title = (
        "At equal bits"
        if len(report["comparisons"]) == 1
        else f"At equal bits: a budget of {number(comparison['budget_bits'])}"
    )
    rows_ = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    text = (
        f"{rows_} that spent {spent} bits of {number(comparison['budget_bits'])}, ordered by"
        " validation accuracy; "
    )
    text += "percent ± the standard deviation over n seeds."
    if any(row["is_baseline"] for row in rows):
        text += (
            " Against the baseline: test accuracy of the last epoch, paired, with the 95% interval."
        )
    text = measured(text, report["metric"]) + f" {table_caption(report, comparison)}"
    beside = legend(rows)
    beside += [
        f"Also differs from {reference(report, comparison)}: {difference}: {'; '.join(labels)}."
        for difference, labels in differing(report, comparison)
    ]
    columns: list[Column] = [
        ("bits", lambda row: number(row["bits"])),
        ("n", lambda row: str(row["n"])),
        ("validation", lambda row: mean_std(row["validation"])),
        ("test, last epoch", lambda row: mean_std(row["test"])),
        ("test, best val.", lambda row: mean_std(row["test_at_best_validation"])),
    ]
    if any(row["difference"]["test"] for row in rows):
        columns.append(("vs. baseline [95%]", lambda row: interval(row["difference"]["test"])))
    figure = None
    if len(rows) > 1:
        drawn = _with_baseline(rows, MOST_DRAWN)
        caption = (
            "Mean (dot), one standard deviation to each side (bar) and every seed (tick), in"
            " percent; rows ordered by validation."
        )
        caption += _left_out(len(rows), len(drawn)) + _keys(drawn)
        figure = _figure(
            f"equal-{index}", caption, lambda width, name: plots.equal_bits(drawn, width, name)
        )
    return {
        "title": title,
        "text": text,
        "table": _table(rows, columns),
        "beside": beside,
        "figure": figure,
    }


def _curves(rows: Sequence[Row], metric: str) -> Figure | None:
    unlike = [
        row for row in _unlike(rows) if row["test_stages"] and row["test_stages"][-1] is not None
    ]
    if not unlike:
        return None
    drawn, behind = _with_baseline(unlike, MOST_CURVES), _with_baseline(unlike, MOST_GREY)
    caption = measured("Test accuracy in percent", metric) + (
        " after each training against the bits spent by then: mean, and a band of one standard"
        " deviation over seeds."
    )
    caption += " Grey: the other rows." if len(unlike) > 1 else ""
    if any(row["is_baseline"] for row in unlike):
        caption += " Dashed: where the baseline ends."
    caption += " A candidate with several names is drawn once." * (
        len(unlike) < len(rows)
    ) + _left_out(len(behind), len(drawn), "drawn only in grey")
    caption += _left_out(len(unlike), len(behind))
    return _figure("curves", caption, lambda width, name: plots.curves(drawn, behind, width, name))


def _guesses(rows: Sequence[Row], even: Mapping[str, float] | None) -> Mapping[str, Any] | None:
    asked = [row for row in _unlike(rows) if row["rounds"] and asks(row)]
    if not asked:
        return None
    drawn = asked[:MOST_GUESSES]
    caption = (
        f"{'Answers that were yes' if even is None else 'Guesses that were right'} in each round"
        " (circled number), in percent, with one standard deviation over seeds; the answers of an"
        " average seed."
    )
    caption += _left_out(len(asked), len(drawn))
    figure = _figure(
        "guesses", caption, lambda width, name: plots.guesses(drawn, even, width, name)
    )
    head = (
        "case",
        "round",
        "n",
        "answered",
        "yes",
        "no",
        "skipped",
        "wasted",
        "yes, %" if even is None else "right, %",
        *WORTH_HEAD,
    )
    lines = []
    for row in asked:
        for item in row["rounds"]:
            counts = [count(item[key]) for key in ("questions", "yes", "no", "skipped", "wasted")]
            lines.append(
                [
                    row["label"],
                    str(item["round"]),
                    str(item["guess_accuracy"]["n"]),
                    *counts,
                    mean_std(item["guess_accuracy"]),
                    *worth(item),
                ]
            )
    line = None if even is None else break_even_line(even)
    return {"break_even": line, "figure": figure, "head": head, "rows": lines}


def _bought(rows: Sequence[Row]) -> Mapping[str, Any] | None:
    if not rows:
        return None
    columns: list[Column] = [
        ("labels + questions", schedule),
        ("n", lambda row: str(row["n"])),
        ("bits", lambda row: number(row["bits"])),
        ("people's hours", lambda row: number(row["annotation_hours"], 2)),
        ("yes / no", yes_no),
    ]
    if any(row["wasted"] for row in rows):
        columns.append(("wasted", lambda row: count(row["wasted"])))
    if any(row["unspent"] for row in rows):
        columns.append(("left over", lambda row: count(row["unspent"])))
    columns += [(name, partial(figure, name=name)) for name in figures(rows)]
    columns.append(("test after each training", lambda row: chain(row["test_stages"])))
    beside = sorted({number(row["validation_bits"]) for row in rows if row["validation_bits"]})
    text = (
        "Labels at the start, then the questions of each round. Hours at"
        f" {seconds_in_words(rows)}; where questions are about several classes, at the task's"
        " seconds for those that were asked."
    )
    if beside:
        text += (
            f" Beside the budget, every trial uses validation labels worth {' or '.join(beside)}"
            " bits."
        )
    return {"text": text, "table": _table(rows, columns)}


def _published(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not report["anchors"]:
        return None
    rows = [TableRow(item["label"], anchor_cells(item)) for item in report["anchors"]]
    return {"table": Table(("case", *ANCHOR_HEAD), rows), "protocols": protocols(report)}


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    lines = []
    for row in rows:
        kind = "best" if row["is_leader"] else "base" if row["is_baseline"] else ""
        lines.append(TableRow(row["label"], [read(row) for _, read in columns], kind, marks(row)))
    return Table(("case", *(title for title, _ in columns)), lines)


def _figure(name: str, caption: str, draw: Callable[[int, str], str]) -> Figure:
    # SVG of matplotlib, which escapes the text in it.
    wide, narrow = draw(WIDE, f"{name}-wide"), draw(NARROW, f"{name}-narrow")
    return Figure(name, caption, Markup(wide), Markup(narrow))  # noqa: S704


def _unlike(rows: Sequence[Row]) -> list[Row]:
    """Each candidate once, under the baseline's name or its first."""
    unlike: dict[str, Row] = {}
    for row in rows:
        if row["candidate"] not in unlike or row["is_baseline"]:
            unlike[row["candidate"]] = row
    return list(unlike.values())


def _with_baseline(rows: Sequence[Row], most: int) -> list[Row]:
    """The first `most` rows, the baseline among them wherever it stands."""
    kept = list(rows[:most])
    base = next((row for row in rows if row["is_baseline"]), None)
    return kept if base is None or base in kept else [*kept[:-1], base]


def _left_out(of: int, drawn: int, how: str = "not drawn") -> str:
    return (
        ""
        if drawn == of
        else f" {of - drawn} further rows are {how}; the files beside this page have them all."
    )


def _keys(rows: Sequence[Row]) -> str:
    text = " Blue: the highest by validation." if any(row["is_leader"] for row in rows) else ""
    return text + (
        " Diamond and dashed line: the baseline." if any(row["is_baseline"] for row in rows) else ""
    )
