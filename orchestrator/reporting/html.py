"""The report as one HTML file that needs nothing else: no script, no network, plots as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

from orchestrator.reporting import plots
from orchestrator.reporting.style import CSS
from orchestrator.reporting.words import (
    ANCHOR_HEAD,
    WORTH_HEAD,
    anchor_cells,
    apart,
    break_even_line,
    chain,
    count,
    differing,
    failure_line,
    headline,
    interval,
    legend,
    marks,
    mean_std,
    notes,
    number,
    protocols,
    reference,
    schedule,
    shown,
    table_caption,
    worth,
    yes_no,
)
from search_spaces.reading.schedule import SECONDS_PER_LABEL, SECONDS_PER_QUESTION

WIDE, NARROW = 960, 358
"""Widths that each plot is drawn for, in CSS pixels; the page shows the one that fits."""
MOST_DRAWN: Final = 30
MOST_CURVES: Final = 12
MOST_GREY: Final = 100
"""Every panel has all of the grey curves: a search's thousand would take a quarter of a minute to draw, and show a grey field."""
MOST_GUESSES: Final = 16

Row = Mapping[str, Any]


def html(report: Mapping[str, Any]) -> str:
    """The page. Everything that a user named is escaped; equal reports give equal pages."""
    report = shown(report)
    table = report["rows"]
    sections = []
    for index, comparison in enumerate(report["comparisons"]):
        sections.append(_comparison(report, comparison, index))
    if report["apart"]:
        sections.append(_apart(report))
    main = next((comparison for comparison in report["comparisons"] if comparison["main"]), None)
    if main is not None:
        drawn = [table[index] for index in main["rows"]]
        sections += [_curves(drawn), _guesses(drawn, report["break_even"])]
    if any(row["n"] for row in table):
        sections.append(_bought(table))
    if report["anchors"]:
        sections.append(_anchors(report))
    if report["failed"]:
        sections.append(_failed(report["failed"]))
    sections.append('<h2>How to read this</h2>\n<ul class="notes">' + "".join(f"<li>{escape(line)}</li>" for line in notes(report)) + "</ul>")
    body = "\n".join(sections)
    # The policy forbids what the page never does, should a name ever slip through unescaped.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(report["name"])}: sweep report</title>\n'
        f"<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{_header(report)}\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(report: Mapping[str, Any]) -> str:
    trials, data = report["trials"], report["dataset"]
    state = f"{trials['finished']} of {sum(trials.values())} finished" + (f", {trials['failed']} failed" if trials["failed"] else "")
    facts = [("Trials", state), ("Budget of a trial", f"{number(report['budget_bits'])} bits")]
    if data is not None:
        facts.insert(0, ("Data", f"{data['name']}: {data['num_classes']} classes, {data['train_items']:,} training and {data['test_items']:,} test items"))
    trainings = report["stage_trainings"]
    facts.append(("Stage trainings", f"{trainings['trained']} trained, {trainings['shared']} shared"))
    made_on = " · ".join(", ".join(values) for values in report["made_on"].values() if values)
    if made_on:
        facts.append(("Trained on", made_on))
    entries = "".join(f"<div><dt>{escape(term)}</dt><dd>{_text(text)}</dd></div>" for term, text in facts)
    title = f'<p class="kind">Labelling schedules at equal bits</p>\n<h1>{escape(report["name"])}</h1>'
    return f'<header>\n{title}\n<p class="lead">{_text(headline(report))}</p>\n<dl class="facts">{entries}</dl>\n</header>'


def _comparison(report: Mapping[str, Any], comparison: Mapping[str, Any], index: int) -> str:
    rows = [report["rows"][number_] for number_ in comparison["rows"]]
    low, high = comparison["bits"]
    spent = number(high) if number(low) == number(high) else f"{number(low)} to {number(high)}"
    title = "At equal bits" if len(report["comparisons"]) == 1 else f"At equal bits: a budget of {number(comparison['budget_bits'])}"
    rows_ = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    text = f"{rows_} that spent {spent} bits of {number(comparison['budget_bits'])}, ordered by validation accuracy; "
    text += "percent ± the standard deviation over n seeds."
    if any(row["is_baseline"] for row in rows):
        text += " Against the baseline: test accuracy of the last epoch, paired, with the 95% interval."
    text += f" {table_caption(comparison)}"
    beside = legend(rows)
    beside += [f"Also differs from {reference(report, comparison)}: {found}: {'; '.join(labels)}." for found, labels in differing(report, comparison)]
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("bits", lambda row: number(row["bits"])),
        ("n", lambda row: str(row["n"])),
        ("validation", lambda row: mean_std(row["val_top1"])),
        ("test, last epoch", lambda row: mean_std(row["test_top1_last"])),
        ("test, best val.", lambda row: mean_std(row["test_top1_at_best_val"])),
    ]
    if any(row["difference"]["test_top1_last"] for row in rows):
        columns.append(("vs. baseline [95%]", lambda row: interval(row["difference"]["test_top1_last"])))
    parts = [f"<h2>{escape(title)}</h2>", f'<p class="small">{_text(text)}</p>', _table(rows, columns)]
    if beside:
        parts.append('<ul class="notes">' + "".join(f"<li>{_text(line)}</li>" for line in beside) + "</ul>")
    if len(rows) > 1:
        drawn = _with_baseline(rows, MOST_DRAWN)
        caption = "Mean (dot), one standard deviation to each side (bar) and every seed (tick), in percent; rows ordered by validation."
        caption += _left_out(len(rows), len(drawn)) + _keys(drawn)
        parts.append(_figure(f"equal-{index}", caption, lambda width, name: plots.equal_bits(drawn, width, name)))
    return "\n".join(parts)


def _curves(rows: Sequence[Row]) -> str:
    unlike = [row for row in _unlike(rows) if row["stages"] and row["stages"][-1] is not None]
    if not unlike:
        return ""
    drawn, behind = _with_baseline(unlike, MOST_CURVES), _with_baseline(unlike, MOST_GREY)
    caption = "Test accuracy in percent after each training against the bits spent by then: mean, and a band of one standard deviation over seeds."
    caption += " Grey: the other rows." if len(unlike) > 1 else ""
    if any(row["is_baseline"] for row in unlike):
        caption += " Dashed: where the baseline ends."
    caption += " A candidate with several names is drawn once." * (len(unlike) < len(rows)) + _left_out(len(behind), len(drawn), "drawn only in grey")
    caption += _left_out(len(unlike), len(behind))
    return "<h2>Accuracy against bits</h2>\n" + _figure("curves", caption, lambda width, name: plots.curves(drawn, behind, width, name))


def _guesses(rows: Sequence[Row], even: Mapping[str, float]) -> str:
    asked = [row for row in _unlike(rows) if row["rounds"]]
    if not asked:
        return ""
    drawn = asked[:MOST_GUESSES]
    caption = "Guesses that were right in each round (circled number), in percent, with one standard deviation over seeds; the answers of an average seed."
    caption += _left_out(len(asked), len(drawn))
    figure = _figure("guesses", caption, lambda width, name: plots.guesses(drawn, even, width, name))
    head = "".join(f"<th>{name}</th>" for name in ("case", "round", "n", "answered", "yes", "no", "skipped", "wasted", "right, %", *WORTH_HEAD))
    lines = []
    for row in asked:
        for item in row["rounds"]:
            cells = [str(item["round"]), str(item["guess_accuracy"]["n"]), *(count(item[key]) for key in ("questions", "yes", "no", "skipped", "wasted"))]
            cells += [mean_std(item["guess_accuracy"]), *worth(item)]
            lines.append(f"<tr><td>{escape(row['label'])}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    numbers = f'<details><summary>All rounds in numbers</summary><div class="scroll">{whole}</div></details>'
    return f"<h2>Were the questions worth their bits?</h2>\n<p>{_text(break_even_line(even))}</p>\n{figure}\n{numbers}"


def _bought(table: Sequence[Row]) -> str:
    rows = [row for row in table if row["n"]]
    columns: list[tuple[str, Callable[[Row], str]]] = [
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
    columns.append(("test after each training", lambda row: chain(row["stages"])))
    beside = sorted({number(row["validation_bits"]) for row in rows if row["validation_bits"]})
    text = f"Labels at the start, then the questions of each round. Hours at {SECONDS_PER_LABEL:.0f} s a label and {SECONDS_PER_QUESTION} s a question, "
    text += "the times measured in the user study of Hu et al. (2020)."
    if beside:
        text += f" Beside the budget, every trial uses validation labels worth {' or '.join(beside)} bits."
    return f'<h2>What each schedule bought</h2>\n<p class="small">{escape(text)}</p>\n{_table(rows, columns)}'


def _apart(report: Mapping[str, Any]) -> str:
    lines = "".join(f"<li><b>{escape(label)}</b>: {_text(reason)}.</li>" for label, reason in apart(report))
    return f'<h2>Apart</h2>\n<p class="small">Not at equal bits with other rows, so not compared and never called best.</p>\n<ul class="apart">{lines}</ul>'


def _anchors(report: Mapping[str, Any]) -> str:
    head = "<th>case</th>" + "".join(f"<th>{escape(title)}</th>" for title in ANCHOR_HEAD)
    lines = []
    for item in report["anchors"]:
        cells = "".join(f'<td data-label="{escape(title)}">{_text(cell)}</td>' for title, cell in zip(ANCHOR_HEAD, anchor_cells(item), strict=True))
        lines.append(f"<tr><td>{escape(item['label'])}</td>{cells}</tr>")
    table = f'<div class="scroll"><table class="cards"><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(lines)}\n</tbody></table></div>'
    sides = "".join(f"<li>{escape(line)}</li>" for line in protocols(report))
    return f'<h2>Beside published numbers</h2>\n{table}\n<ul class="notes">{sides}</ul>'


def _failed(items: Sequence[Mapping[str, Any]]) -> str:
    lines = "".join(f"<li>{escape(failure_line(item))}</li>" for item in items)
    return f'<h2>Failed trials</h2>\n<ul class="failed">{lines}</ul>'


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, Callable[[Row], str]]]) -> str:
    head = "<th>case</th>" + "".join(f"<th>{escape(title)}</th>" for title, _ in columns)
    lines = []
    for row in rows:
        kind = "best" if row["is_leader"] else "base" if row["is_baseline"] else ""
        found = marks(row)
        name = escape(row["label"]) + (f'<small class="mark">{", ".join(found)}</small>' if found else "")
        cells = "".join(_cell(title, _text(read(row))) for title, read in columns)
        lines.append(f"<tr{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}><td>{name}</td>{cells}</tr>")
    return f'<div class="scroll"><table class="cards"><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(lines)}\n</tbody></table></div>'


def _cell(title: str, text: str) -> str:
    # A chain takes a line of its own on a telephone.
    long = ' class="long"' if "→" in text else ""
    return f'<td{long} data-label="{escape(title)}">{text}</td>'


def _text(text: str) -> str:
    """Escaped, and with numbers kept together with their signs and units."""
    return escape(text).replace(" ± ", "&nbsp;±&nbsp;").replace(" %", "&nbsp;%").replace("n = ", "n&nbsp;=&nbsp;")


def _figure(name: str, caption: str, draw: Callable[[int, str], str]) -> str:
    wide, narrow = draw(WIDE, f"{name}-wide"), draw(NARROW, f"{name}-narrow")
    legend = f'<figcaption id="{name}-caption">{escape(caption)}</figcaption>'
    return f'<figure>\n<div class="wide">{wide}</div>\n<div class="narrow">{narrow}</div>\n{legend}\n</figure>'


def _unlike(rows: Sequence[Row]) -> list[Row]:
    """Each candidate once, under the baseline's name or its first."""
    found: dict[str, Row] = {}
    for row in rows:
        if row["candidate"] not in found or row["is_baseline"]:
            found[row["candidate"]] = row
    return list(found.values())


def _with_baseline(rows: Sequence[Row], most: int) -> list[Row]:
    """The first `most` rows, the baseline among them wherever it stands."""
    kept = list(rows[:most])
    base = next((row for row in rows if row["is_baseline"]), None)
    return kept if base is None or base in kept else [*kept[:-1], base]


def _left_out(of: int, drawn: int, how: str = "not drawn") -> str:
    return "" if drawn == of else f" {of - drawn} further rows are {how}; the files beside this page have them all."


def _keys(rows: Sequence[Row]) -> str:
    text = " Blue: the highest by validation." if any(row["is_leader"] for row in rows) else ""
    return text + (" Diamond and dashed line: the baseline." if any(row["is_baseline"] for row in rows) else "")
