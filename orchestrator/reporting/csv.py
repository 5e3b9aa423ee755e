"""The report as CSV and JSON files, for other programs; a spreadsheet or a terminal that shows them
runs nothing that a name says.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from orchestrator.reporting.names import old_columns, with_old_names
from orchestrator.reporting.results import printable
from orchestrator.reporting.words import figures, value_text


def csv_by_seed(report: Mapping[str, Any]) -> str:
    """One line per row and finished seed, unrounded."""
    head = [
        "case",
        "label",
        "candidate",
        "trial",
        "seed",
        "n",
        "initial_labels",
        "quotas",
        "budget_bits",
        "bits",
    ]
    head += [
        "validation",
        "test",
        "test_at_best_validation",
        "test_stages",
        "stage_bits",
        "guess_accuracy",
    ]
    head += ["questions", "yes", "no", "skipped", "wasted", "unspent", "comparable", "is_baseline"]
    head += ["metric"]
    varied = _varied(report)
    named = figures(report["rows"])
    lines = []
    for row in report["rows"]:
        for seed in row["per_seed"]:
            whole = {**row, **row["schedule"], **seed}
            cells = [whole[key] for key in head] + [seed["named"].get(name) for name in named]
            lines.append([_cell(cell) for cell in cells] + [_setting(row, key) for key in varied])
    head += [*(_column(name) for name in named), *varied]
    return _csv(*_with_old_columns(head, lines))


def csv_by_row(report: Mapping[str, Any]) -> str:
    """One line per row, unrounded: means and sample standard deviations over n seeds, and the
    paired differences.
    """
    metrics = ("validation", "test", "test_at_best_validation")
    plain = ["case", "label", "candidate", "n", "seeds", "initial_labels", "quotas"]
    plain += [
        "budget_bits",
        "bits",
        "label_bits",
        "question_bits",
        "validation_bits",
        "annotation_hours",
    ]
    after = [
        "test_stages",
        "questions",
        "yes",
        "no",
        "wasted",
        "unspent",
        "comparable",
        "reason",
        "is_baseline",
        "is_best",
    ]
    after += ["is_leader", "tied_with_best", "like_with_like", "metric"]
    parts = ("n", "mean", "std", "low", "high", "sources", "p", "p_holm", "told_apart")
    head = (
        plain
        + [f"{metric}_{part}" for metric in metrics for part in ("mean", "std")]
        + after
        + ["also_differs"]
    )
    head += [f"difference_{metric}_{part}" for metric in metrics for part in parts] + [
        f"to_leader_validation_{part}" for part in parts
    ]
    varied = _varied(report)
    named = figures(report["rows"])
    lines = []
    for row in report["rows"]:
        whole = {**row, **(row["schedule"] or {"initial_labels": None, "quotas": None})}
        cells = (
            [whole[key] for key in plain]
            + [row[metric][part] for metric in metrics for part in ("mean", "std")]
            + [whole[key] for key in after]
        )
        cells.append(
            "; ".join(
                f"{item['key']} {value_text(item['theirs'])} -> {value_text(item['ours'])}"
                for item in row["also_differs"]
            )
        )
        cells += [
            (gap or {}).get(part)
            for gap in (*(row["difference"][metric] for metric in metrics), row["to_leader"])
            for part in parts
        ]
        cells += [
            row["named"].get(name, {}).get(part) for name in named for part in ("mean", "std")
        ]
        lines.append([_cell(cell) for cell in cells] + [_setting(row, key) for key in varied])
    head += [f"{_column(name)}_{part}" for name in named for part in ("mean", "std")] + varied
    return _csv(*_with_old_columns(head, lines))


def _varied(report: Mapping[str, Any]) -> list[str]:
    """Keys that the sweep varied: a column each."""
    return list({key: None for row in report["rows"] for key in row["settings"]})


def _setting(row: Mapping[str, Any], key: str) -> str:
    value = row["settings"].get(key)
    return _cell(json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value)


_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the start of a formula, the wide forms among them."""


def _column(name: str) -> str:
    """A figure's name as that of a column, unlike all others'."""
    return "figure_" + _cell(name).replace(" ", "_")


def _cell(value: object) -> str:
    """A cell: numbers as they are, text on one line and behind an apostrophe where a spreadsheet
    would run it.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(_cell(item) for item in value)
    if isinstance(value, float):
        return repr(value)
    text = printable(str(value))
    # Some spreadsheets skip spaces before a formula.
    return (
        f"'{text}" if text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
    )


def _with_old_columns(head: list[str], lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Returns a table with its renamed columns once more at its end, under their old names."""
    pairs = [(old, head.index(column)) for old, column in old_columns(head)]
    return head + [old for old, _ in pairs], [
        line + [line[at] for _, at in pairs] for line in lines
    ]


def _csv(head: list[str], lines: list[list[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return out.getvalue()


def json_text(report: Mapping[str, Any]) -> str:
    """The report as JSON: every character that cannot be shown is a JSON escape, so a terminal that
    the file is shown on runs nothing.
    """
    text = json.dumps(with_old_names(report), indent=1, ensure_ascii=False, allow_nan=False)
    return (
        "".join(
            char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
        )
        + "\n"
    )
