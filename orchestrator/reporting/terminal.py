"""The report as a table for a terminal, shown at the end of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.box import Box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from orchestrator.reporting import words as write
from orchestrator.reporting.effects import effect_tables
from orchestrator.reporting.orderings import ordering_cells
from orchestrator.reporting.results import printable

_RULE: Final = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
"""One rule below the heading, nothing else."""
_ROOMY: Final = 108
"""Columns from which the schedule has a column of its own; below, it stands under the case."""


def render(report: Mapping[str, Any]) -> RenderableType:
    """The rows at equal bits, best validation first, and what there is to know beside them.

    The names in it come from files: they are never read as markup, and escapes in them are written
    out.
    """
    report = write.shown(report)
    table = report["rows"]
    parts: list[RenderableType] = []
    for comparison in report["comparisons"]:
        title = (
            "at equal bits"
            if len(report["comparisons"]) == 1
            else f"at equal bits, budget {write.number(comparison['budget_bits'])}"
        )
        rows = [table[index] for index in comparison["rows"]]
        parts += [Text(f"{report['name']}: {title}", style="bold"), _Rows(rows)]
        parts += [
            Text(line, style="dim")
            for line in (write.table_caption(report, comparison), *write.legend(rows))
            if line
        ]
        for text, labels in write.differing(report, comparison):
            parts.append(
                Text(
                    f"also differs from {write.reference(report, comparison)}: {text}:"
                    f" {'; '.join(labels)}",
                    style="dim",
                )
            )
    parts.append(Text(write.headline(report) + "\n"))
    for item in report["orderings"]:
        pair, gap, p, told = ordering_cells(report, item)
        parts.append(Text(f"{pair}: {gap}, p = {p}: {told}".replace("p = <", "p <")))
    if report["orderings"]:
        parts.append(Text(f"{report['rules']['ordering']}\n", style="dim"))
    for key, over, lines in effect_tables(report):
        parts.append(Text(f"{key}, on average", style="bold"))
        parts += [_effect(key, lines), Text(f"{over}\n", style="dim")]
    parts += [
        Text(f"not compared: {label}: {reason}", style="yellow")
        for label, reason in write.apart(report)
    ]
    parts += [Text(f"published: {_anchor_line(item)}", style="dim") for item in report["anchors"]]
    parts += [Text(f"failed: {write.failure_line(item)}", style="red") for item in report["failed"]]
    how = (
        "± is the standard deviation over n seeds; vs. baseline: test of the last epoch, paired, ±"
        " half of the 95% interval."
    )
    parts.append(Text(f"{write.training_line(report)} {how}", style="dim"))
    return Group(*parts)


def _effect(key: str, lines: Sequence[tuple[bool, list[str]]]) -> Table:
    table = Table(box=_RULE, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(key.rpartition(".")[2], overflow="fold", min_width=14)
    for title in ("validation", "test", "vs. the highest"):
        table.add_column(title, justify="right", no_wrap=True)
    for highest, (value, *cells) in lines:
        table.add_row(Text(value), *cells, style="bold" if highest else "")
    return table


def show(console: Console, report: Mapping[str, Any], page: Path | None) -> None:
    """Prints the table, and the path of the report's page in one line of whatever length: broken
    over two it could not be copied.
    """
    console.print(render(report))
    if page is not None:
        console.print(Text.assemble("Report: ", (printable(str(page)), "bold")), soft_wrap=True)


def _anchor_line(item: Mapping[str, Any]) -> str:
    ours, published, gap, _, _, networks, unlike, where = write.anchor_cells(item)
    return (
        f"{item['label']}: {published} ({where}), ours {ours}: {gap}; {networks}; unlike in"
        f" {unlike}"
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """A table that fits itself to the width of the terminal."""

    rows: Sequence[Mapping[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        roomy = options.max_width >= _ROOMY
        table = Table(box=_RULE, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("case", overflow="fold", min_width=14)
        if roomy:
            table.add_column("labels + questions", overflow="fold")
        titles = ["bits", "n", "validation", "test", "vs. baseline", "yes / no"]
        for title in [*titles[:1], *(["hours"] if roomy else []), *titles[1:]]:
            table.add_column(title, justify="right", no_wrap=True)
        for row in self.rows:
            name = Text(row["label"])
            for word in write.marks(row, short=True):
                name.append(f" ({word})")
            plan = write.schedule(row)
            first = [name, plan] if roomy else [Text.assemble(name, "\n", (plan, "dim"))]
            cells = [
                write.number(row["bits"]),
                *([write.number(row["annotation_hours"])] if roomy else []),
                str(row["n"]),
                write.mean_std(row["validation"]),
                write.mean_std(row["test"]),
            ]
            cells += [write.half_width(row["difference"]["test"]), write.yes_no(row)]
            table.add_row(
                *first,
                *cells,
                style="bold cyan" if row["is_leader"] else "bold" if row["is_baseline"] else "",
            )
        yield table
