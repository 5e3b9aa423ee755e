"""The report as Markdown and CSV, and how numbers are written in every form of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"


def number(value: float | None, digits: int = 1) -> str:
    """The value rounded, a true minus sign, or a dash for nothing."""
    if value is None:
        return NOTHING
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def mean_std(value: Mapping[str, float | None]) -> str:
    """`94.8 ± 1.3`, without the second part at one seed."""
    if value["mean"] is None or value["std"] is None:
        return number(value["mean"])
    return f"{number(value['mean'])} ± {number(value['std'])}"


def chain(stages: Sequence[float | None]) -> str:
    """Accuracy after each training: `51.5 → 67.8 → 73.8`."""
    return " → ".join(number(stage) for stage in stages) or NOTHING


def signed(value: float | None) -> str:
    if value is None:
        return NOTHING
    text = number(value)
    return text if value < 0 and text.startswith("−") else f"+{text}"


def interval(gap: Mapping[str, float | None] | None) -> str:
    """`+2.1 [−0.3, 4.5]`, without the interval below two pairs."""
    if gap is None or gap["mean"] is None:
        return NOTHING
    if gap["low"] is None:
        return signed(gap["mean"])
    return f"{signed(gap['mean'])} [{number(gap['low'])}, {number(gap['high'])}]"


def half_width(gap: Mapping[str, float | None] | None) -> str:
    """`+2.1 ± 2.4`: the mean difference and half of its 95% interval."""
    if gap is None or gap["mean"] is None:
        return NOTHING
    if gap["high"] is None:
        return signed(gap["mean"])
    return f"{signed(gap['mean'])} ± {number(gap['high'] - gap['mean'])}"


def schedule(row: Mapping[str, Any]) -> str:
    """`20 + 133 + 132`: labels bought at the start, then the questions of each round."""
    found = row["schedule"]
    if found is None:
        return NOTHING
    return " + ".join(f"{value:,}" for value in [found["initial_labels"], *found["quotas"]])


def count(value: float | None) -> str:
    """A count, with one decimal only where a mean over seeds needs it."""
    return number(value, 0 if value is None or abs(value - round(value)) < 0.05 else 1)


def yes_no(row: Mapping[str, Any]) -> str:
    if not row["questions"]:
        return NOTHING
    return f"{number(row['yes'], 0)} / {number(row['no'], 0)}"


def marks(row: Mapping[str, Any]) -> list[str]:
    return [word for word, key in (("best by validation", "is_best"), ("baseline", "is_baseline")) if row[key]]


def headline(report: Mapping[str, Any]) -> str:
    """What the sweep says, in one or two sentences of plain text."""
    found = next((comparison for comparison in report["comparisons"] if comparison["main"]), None)
    if found is None:
        return "No trial has finished yet."
    if found["best"] is None:
        return f"No row is called best: {found['no_best']}."
    row = report["rows"][found["best"]]
    unfinished = report["trials"]["running"] + report["trials"]["pending"]
    text = f"{'So far, at' if unfinished else 'At'} {number(found['bits'][1])} bits, “{row['label']}” has the highest validation accuracy: "
    text += f"{mean_std(row['val_top1'])} % (n = {row['n']}), "
    text += f"with {mean_std(row['test_top1_last'])} % on the test images."
    gap = row["difference"]["test_top1_last"]
    if row["n"] == 1:
        return text + " One seed has no error bar: nothing here tells the rows apart. Add seeds."
    if gap is not None and gap["mean"] is not None:
        text += f" Against “{report['baseline']}” that is {interval(gap)} points on the test images (95% interval, {gap['n']} paired seeds)."
    near, others = ({report["rows"][index]["candidate"] for index in found[key]} - {row["candidate"]} for key in ("not_separated", "rows"))
    if near:
        which = "the other candidate" if len(others) == 1 else f"{len(near)} of the {len(others)} other candidates"
        text += f" By validation, {which} cannot be told apart from it: the 95% interval of the paired difference holds zero."
    return text


def apart(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows that are not compared, each with the reason; those that have nothing yet are gathered in one line."""
    found, waiting = [], []
    for item in report["apart"]:
        row = report["rows"][item["row"]]
        if row["n"]:
            found.append((row["label"], f"{item['reason']}; validation {mean_std(row['val_top1'])}, test {mean_std(row['test_top1_last'])} (n = {row['n']})"))
        elif all(seed["state"] == "failed" for seed in row["unfinished"]):
            found.append((row["label"], item["reason"]))
        else:
            waiting.append(row["label"])
    if waiting:
        found.append((f"{len(waiting)} {'row' if len(waiting) == 1 else 'rows'} without a finished seed", "; ".join(waiting)))
    return found


def training_line(report: Mapping[str, Any]) -> str:
    found = report["stage_trainings"]
    return f"{found['total']} stage trainings, {found['distinct']} distinct by configuration: {found['trained']} trained, {found['shared']} shared" + (
        f", {found['total'] - found['trained'] - found['shared']} not done." if found["trained"] + found["shared"] < found["total"] else "."
    )


def failure_line(item: Mapping[str, Any]) -> str:
    where = f", stage {item['stage']}" if item["stage"] is not None else ""
    kind = f"{item['kind']}: " if item["kind"] else ""
    return f"{' = '.join(item['cases']) or item['trial']}, seed {item['seed']}{where}: {kind}{item['message']}"


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown tables."""
    table = report["rows"]
    parts = [f"# {_md(report['name'])}", _md(headline(report))]
    for comparison in report["comparisons"]:
        low, high = comparison["bits"]
        parts.append(f"## At equal bits: {number(low)} to {number(high)} of {number(comparison['budget_bits'])}")
        parts.append(_results_table([table[index] for index in comparison["rows"]]))
    if report["apart"]:
        parts.append("## Apart: not compared, never called best")
        parts.append("\n".join(f"- {_md(label)}: {_md(reason)}" for label, reason in apart(report)))
    parts += ["## What each schedule bought", _bought_table(table), "## Guesses in each round", _rounds_table(table, report["break_even"])]
    if report["anchors"]:
        parts += ["## Beside published numbers", _anchors_table(report), "\n".join(f"- {_md(line)}" for line in protocols(report))]
    if report["failed"]:
        parts += ["## Failed trials", "\n".join(f"- {_md(failure_line(item))}" for item in report["failed"])]
    parts += ["## How to read this", _notes(report)]
    return "\n\n".join(parts) + "\n"


def _results_table(table: Sequence[Mapping[str, Any]]) -> str:
    head = ["case", "bits", "n", "validation", "test, last epoch", "test, best val. epoch", "vs. baseline (test) [95%]", "pairs", "test after each training"]
    body = []
    for row in table:
        gap = row["difference"]["test_top1_last"]
        name = _md(row["label"]) + "".join(f" **({word})**" for word in marks(row))
        accuracies = [mean_std(row[key]) for key in ("val_top1", "test_top1_last", "test_top1_at_best_val")]
        body.append([name, number(row["bits"]), str(row["n"]), *accuracies, interval(gap), str(gap["n"]) if gap else NOTHING, chain(row["stages"])])
    return _md_table(head, body)


def _bought_table(table: Sequence[Mapping[str, Any]]) -> str:
    head = ["case", "labels + questions", "n", "bits of labels", "bits of questions", "validation bits beside", "hours of people"]
    head += ["yes", "no", "wasted", "left over"]
    keys = ("label_bits", "question_bits", "validation_bits", "annotation_hours")
    body = [
        [_md(row["label"]), schedule(row), str(row["n"]), *(number(row[key]) for key in keys), *(count(row[key]) for key in ("yes", "no", "wasted", "unspent"))]
        for row in table
    ]
    return _md_table(head, body)


def _rounds_table(table: Sequence[Mapping[str, Any]], even: Mapping[str, float] | None) -> str:
    body = []
    for row in table:
        for item in row["rounds"]:
            accuracy = item["guess_accuracy"]
            counts = [count(item[key]) for key in ("questions", "yes", "no", "wasted")]
            body.append([_md(row["label"]), str(item["round"]), str(accuracy["n"]), *counts, mean_std(accuracy), *worth(item)])
    if not body:
        return "No round of questions has been finished."
    text = _md_table(["case", "round", "n", "answered", "yes", "no", "wasted", "guess accuracy", *WORTH_HEAD], body)
    return text if even is None else f"{text}\n\n{break_even_line(even)}"


ANCHOR_HEAD = ("ours, test of the last epoch", "published", "ours minus published", "answers yes", "k bits", "network, epochs", "unlike in", "where")
"""Columns of the table of published numbers, after the case."""


def _gap(item: Mapping[str, Any]) -> str:
    if not item["same_data"]:
        return "not the same data"
    unlike_network = item["gap"] is None and item["ours"]["test_top1_last"]["mean"] is not None
    return "not the same network" if unlike_network else signed(item["gap"])


def anchor_cells(item: Mapping[str, Any]) -> list[str]:
    """One published row beside ours, for ANCHOR_HEAD."""
    ours, theirs = item["ours"], item["published"]
    networks = [f"{side['backbone']}, {side['epochs']}" for side in (ours, theirs)]
    return [
        f"{mean_std(ours['test_top1_last'])} (n = {ours['n']})",
        " → ".join(number(value, 2) for value in theirs["top1"]),
        _gap(item),
        f"{count(ours['yes'])}; theirs {'not said' if theirs['confirmed'] is None else count(theirs['confirmed'])}",
        f"{number(ours['kbits'])}; theirs {number(theirs['kbits'])}",
        networks[0] if networks[0] == networks[1] else f"{networks[0]}; theirs {networks[1]}",
        ", ".join(item["unlike"]),
        f"{theirs['dataset']}, {theirs['table']}, {theirs['row']} [{theirs['source']}]",
    ]


def protocols(report: Mapping[str, Any]) -> list[str]:
    """What ours and theirs were made by, each said once."""
    found: dict[str, None] = {}
    for item in report["anchors"]:
        theirs = item["published"]
        found[f"[{theirs['source']}] {theirs['title']}: {theirs['protocol']}."] = None
    for item in report["anchors"]:
        found[f"Ours: {item['ours']['protocol']}."] = None
    return list(found)


def _anchors_table(report: Mapping[str, Any]) -> str:
    return _md_table(["case", *ANCHOR_HEAD], [[_md(item["label"]), *map(_md, anchor_cells(item))] for item in report["anchors"]])


WORTH_HEAD = ("labels for a label's bits", "labels for a label's time")


def worth(item: Mapping[str, Any]) -> list[str]:
    """How many labels the questions of a round brought for the price of a full one, in bits and in people's time; above 1 they paid."""
    return [number(item["worth"][key], 2) for key in ("per_bit", "per_second")]


def break_even_line(even: Mapping[str, float]) -> str:
    return (
        f"A question buys more than a full label when guesses are right more often than {number(even['per_bit'])} % per bit "
        f"({number(even['per_bit_with_negatives'])} % if an answer no is credited with what it tells), "
        f"or {number(even['per_second'])} % per second of a person's time."
    )


def notes(report: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the numbers, one sentence or two each."""
    share = 100 * report["rules"]["equal_bits_share"]
    lines = [
        report["rules"]["choice"],
        f"Rows are compared when what they spent differs by at most {share:.0f}% of the budget. "
        "The labels of a fixed validation split are priced beside the budget and are the same for every row.",
        f"± is the sample standard deviation over n seeds; [..] is the {report['rules']['interval']}.",
        "Accuracies are top-1 in percent, of the averaged (teacher) model; yes, no and wasted are means over the finished seeds.",
        training_line(report),
    ]
    mixed = [f"{name}s {', '.join(values)}" for name, values in report["made_on"].items() if len(values) > 1 and name != "backbone"]
    if mixed:
        lines.append(f"Trained on unlike {' and '.join(mixed)}: part of a difference may come from that.")
    if report["damaged"]:
        lines.append(f"Unreadable lines were left out: {', '.join(report['damaged'])}.")
    return lines


def _notes(report: Mapping[str, Any]) -> str:
    return "\n".join(f"- {_md(line)}" for line in notes(report))


def csv_by_seed(report: Mapping[str, Any]) -> str:
    """One line per row and finished seed, unrounded."""
    head = ["case", "label", "candidate", "trial", "seed", "n", "initial_labels", "quotas", "budget_bits", "bits"]
    head += ["val_top1", "test_top1_last", "test_top1_at_best_val", "stages", "stage_bits", "guess_accuracy"]
    head += ["questions", "yes", "no", "skipped", "wasted", "unspent", "comparable", "is_baseline"]
    lines = []
    for row in report["rows"]:
        for seed in row["per_seed"]:
            whole = {**row, **row["schedule"], **seed}
            lines.append([_cell(whole[key]) for key in head])
    return _csv(head, lines)


def csv_by_row(report: Mapping[str, Any]) -> str:
    """One line per row, unrounded: means and sample standard deviations over n seeds, and the paired differences."""
    metrics = ("val_top1", "test_top1_last", "test_top1_at_best_val")
    plain = ["case", "label", "candidate", "n", "seeds", "initial_labels", "quotas"]
    plain += ["budget_bits", "bits", "label_bits", "question_bits", "validation_bits", "annotation_hours"]
    after = ["stages", "questions", "yes", "no", "wasted", "unspent", "comparable", "reason", "is_baseline", "is_best"]
    parts = ("n", "mean", "std", "low", "high")
    head = plain + [f"{metric}_{part}" for metric in metrics for part in ("mean", "std")] + after
    head += [f"difference_{metric}_{part}" for metric in metrics for part in parts]
    lines = []
    for row in report["rows"]:
        whole = {**row, **(row["schedule"] or {"initial_labels": None, "quotas": None})}
        cells = [whole[key] for key in plain] + [row[metric][part] for metric in metrics for part in ("mean", "std")] + [whole[key] for key in after]
        cells += [(row["difference"][metric] or {}).get(part) for metric in metrics for part in parts]
        lines.append([_cell(cell) for cell in cells])
    return _csv(head, lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(_cell(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)


def _csv(head: list[str], lines: list[list[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return out.getvalue()


def _md(text: str) -> str:
    """Text that Markdown shows as it is: nothing a name says is taken for markup."""
    for char in "\\`*_[]|~#":
        text = text.replace(char, f"\\{char}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _md_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(head), rule, *map(list, body)])
