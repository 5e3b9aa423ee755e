"""The report as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.reporting.effects import EFFECT_HEAD, effect_tables
from orchestrator.reporting.orderings import ORDERING_HEAD, ordering_cells
from orchestrator.reporting.words import (
    ANCHOR_HEAD,
    NOT_COMPARED,
    NOTHING,
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
    notes,
    number,
    prior_lines,
    protocols,
    reference,
    schedule,
    shown,
    table_caption,
    worth,
    yes_share,
)


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown tables."""
    report = shown(report)
    table = report["rows"]
    parts = [f"# {_md(report['name'])}", _md(headline(report))]
    for comparison in report["comparisons"]:
        low, high = comparison["bits"]
        parts.append(
            f"## At equal bits: {number(low)} to {number(high)} of"
            f" {number(comparison['budget_bits'])}"
        )
        rows = [table[index] for index in comparison["rows"]]
        parts.append(_results_table(rows))
        lines = [*filter(None, [table_caption(report, comparison)]), *legend(rows)]
        lines += [
            f"Also differs from {reference(report, comparison)}: {text}: {'; '.join(labels)}."
            for text, labels in differing(report, comparison)
        ]
        if lines:
            parts.append("\n".join(f"- {_md(line)}" for line in lines))
    if report["orderings"]:
        parts.append("## What was expected")
        body = [list(map(_md, ordering_cells(report, item))) for item in report["orderings"]]
        parts.append(_md_table(ORDERING_HEAD, body))
        parts.append(_md(report["rules"]["ordering"]))
    if report["effects"]:
        parts.append("## What each key does on average")
        for key, over, values in effect_tables(report):
            body = [list(map(_md, cells)) for _, cells in values]
            parts += [_md_table([_md(key), *EFFECT_HEAD], body), _md(f"{key}: {over}.")]
        parts.append(_md(f"{report['rules']['effect']}."))
    if report["apart"]:
        parts.append("## Not compared")
        parts.append(NOT_COMPARED)
        parts.append("\n".join(f"- {_md(label)}: {_md(reason)}" for label, reason in apart(report)))
    parts += [
        "## What each schedule bought",
        _bought_table(table),
        "## Guesses in each round",
        _rounds_table(table, report["break_even"]),
    ]
    if prior := prior_lines(report):
        parts.append("\n".join(f"- {_md(line)}" for line in prior))
    if report["anchors"]:
        parts += [
            "## Beside published numbers",
            _anchors_table(report),
            "\n".join(f"- {_md(line)}" for line in protocols(report)),
        ]
    if report["failed"]:
        parts += [
            "## Failed trials",
            "\n".join(f"- {_md(failure_line(item))}" for item in report["failed"]),
        ]
    parts += ["## How to read this", _notes(report)]
    return "\n\n".join(parts) + "\n"


def _results_table(table: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "case",
        "bits",
        "n",
        "validation",
        "test, last epoch",
        "test, best val. epoch",
        "vs. baseline (test) [95%]",
        "pairs",
        "test after each training",
    ]
    body = []
    for row in table:
        gap = row["difference"]["test"]
        name = _md(row["label"]) + "".join(f" **({word})**" for word in marks(row))
        accuracies = [
            mean_std(row[key]) for key in ("validation", "test", "test_at_best_validation")
        ]
        body.append(
            [
                name,
                number(row["bits"]),
                str(row["n"]),
                *accuracies,
                interval(gap),
                str(gap["n"]) if gap else NOTHING,
                chain(row["test_stages"]),
            ]
        )
    return _md_table(head, body)


def _bought_table(table: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "case",
        "labels + questions",
        "n",
        "bits of labels",
        "bits of questions",
        "validation bits beside",
        "hours of people",
    ]
    named = figures(table)
    head += ["yes", "no", "wasted", "left over", *map(_md, named)]
    keys = ("label_bits", "question_bits", "validation_bits", "annotation_hours")
    body = [
        [
            _md(row["label"]),
            schedule(row),
            str(row["n"]),
            *(number(row[key]) for key in keys),
            *(count(row[key]) for key in ("yes", "no", "wasted", "unspent")),
            *(figure(row, name) for name in named),
        ]
        for row in table
    ]
    return _md_table(head, body)


def _rounds_table(table: Sequence[Mapping[str, Any]], even: Mapping[str, float] | None) -> str:
    body = []
    for row in filter(asks, table):
        for item in row["rounds"]:
            accuracy = item["guess_accuracy"]
            counts = [count(item[key]) for key in ("questions", "yes", "no", "wasted")]
            body.append(
                [
                    _md(row["label"]),
                    str(item["round"]),
                    str(accuracy["n"]),
                    *counts,
                    mean_std(accuracy),
                    *worth(item),
                ]
            )
    if not body:
        return "No round of questions has been finished."
    text = _md_table(
        ["case", "round", "n", "answered", "yes", "no", "wasted", yes_share(even), *WORTH_HEAD],
        body,
    )
    return text if even is None else f"{text}\n\n{break_even_line(even)}"


def _anchors_table(report: Mapping[str, Any]) -> str:
    return _md_table(
        ["case", *ANCHOR_HEAD],
        [[_md(item["label"]), *map(_md, anchor_cells(item))] for item in report["anchors"]],
    )


def _notes(report: Mapping[str, Any]) -> str:
    return "\n".join(f"- {_md(line)}" for line in notes(report))


def _md(text: str) -> str:
    """Text that Markdown shows as it is: nothing a name says is taken for markup."""
    for char in "\\`*_[]|~#":
        text = text.replace(char, f"\\{char}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _md_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in [list(head), rule, *map(list, body)]
    )
