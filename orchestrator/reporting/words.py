"""How numbers, marks and differences are written in every form of the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.reporting.results import printable
from orchestrator.sweeps.stage_records import TOP1

NOTHING = "–"
APART, SEEDS_ONLY, ONE_SEED = "*", "°", "¹"
"""Marks behind a difference; `legend` says what they mean."""


LEFT_OVER: Final = 0.001
"""Share of a budget from which on it is worth a word that nothing was left to spend it on."""

FEW_SEEDS: Final = 5
"""Below so many the quantile of Student's t, corrected for a dozen rows, is 8 (n = 4) or 15 (n = 3)
where the normal one is 3.
"""


def shown(value: Any) -> Any:
    """A report with every text in it fit to be shown: on one line, control characters and escapes
    for a terminal written out.
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {key: shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list) else value


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


def interval(gap: Mapping[str, Any] | None) -> str:
    """`+2.1 [−0.3, 4.5] *`, without the interval where there is none."""
    if gap is None or gap["mean"] is None:
        return NOTHING
    if gap["low"] is None:
        return signed(gap["mean"])
    return f"{signed(gap['mean'])} [{number(gap['low'])}, {number(gap['high'])}]{_gap_marks(gap)}"


def half_width(gap: Mapping[str, Any] | None) -> str:
    """`+2.1 ± 2.4 *`: the mean difference and half of its 95% interval."""
    if gap is None or gap["mean"] is None:
        return NOTHING
    if gap["high"] is None:
        return signed(gap["mean"])
    return f"{signed(gap['mean'])} ± {number(gap['high'] - gap['mean'])}{_gap_marks(gap)}"


def _gap_marks(gap: Mapping[str, Any]) -> str:
    marks = APART if gap.get("told_apart") else ""
    if gap["n"] == 1:
        marks += ONE_SEED
    elif gap.get("sources") == "seeds":
        marks += SEEDS_ONLY
    return f" {marks}" if marks else ""


def measured(text: str, metric: str) -> str:
    """Returns a text about the accuracy of models as it is for models that a metric judges."""
    if metric == TOP1:
        return text
    return re.sub(r"\b([Vv]alidation|[Tt]est) accuracy", rf"\1 {metric}", text)


def table_caption(report: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """What to keep in mind about the highest row of a table, and why none is best where the
    headline does not say it.
    """
    words = []
    if comparison["leader"] is not None:
        words.append(
            f"The highest of {comparison['candidates']} is partly the luckiest: on other images"
            " expect less than its validation accuracy."
        )
    if not comparison["main"]:
        if comparison["leader"] is None:
            words.append(f"No row leads: {comparison['no_leader']}.")
        elif comparison["best"] is None:
            words.append(f"No row is called best: {comparison['no_best']}.")
    return measured(" ".join(words), report["metric"])


def legend(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the marks behind the differences to the baseline on test mean, those that occur, and
    which rows could not spend their budget.
    """
    gaps = [
        gap
        for row in rows
        if (gap := row["difference"]["test"]) is not None and gap["low"] is not None
    ]
    lines = []
    if any(gap["n"] > 1 for gap in gaps):
        lines.append(
            f"{APART} significantly different from the baseline, at 5% after Holm's correction for"
            " the rows of this table; without it a difference is within noise, also where its own"
            " 95% interval leaves zero out."
        )
    if any(gap["n"] > 1 and gap["sources"] == "seeds" for gap in gaps):
        lines.append(
            f"{SEEDS_ONLY} spread over seeds alone: it is not on record which test images were"
            " right, or the metric is no share of them, so the error of the images is missing and"
            " may be larger."
        )
    if any(gap["n"] == 1 for gap in gaps):
        lines.append(
            f"{ONE_SEED} one seed: the error of the test images for these two models alone; it says"
            " nothing of another seed."
        )
    return lines + _left_over(rows)


def _left_over(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says which rows had nothing left to ask, or to label, for part of their budget."""
    left = [row for row in rows if (row["unspent"] or 0) >= max(1, LEFT_OVER * row["budget_bits"])]
    if not left:
        return []
    said = "; ".join(f"{row['label']} {count(row['unspent'])}" for row in left)
    return [f"Questions (or labels) of the plan for which no image was left, on average: {said}."]


def schedule(row: Mapping[str, Any]) -> str:
    """`20 + 133 + 132`: labels bought at the start, then the questions of each round."""
    planned = row["schedule"]
    if planned is None:
        return NOTHING
    # What blind draws decided is a mean over seeds.
    mark = "~" if planned.get("drawn") else ""
    said = " + ".join(
        f"{mark}{value:,}" for value in [planned["initial_labels"], *planned["quotas"]]
    )
    return f"{said} labels" if planned.get("buys") == "labels" else said


def asks(row: Mapping[str, Any]) -> bool:
    """Whether a row's rounds ask yes/no questions; else they buy labels, which are in no table of
    answers.
    """
    return bool(row["schedule"] is None or row["schedule"].get("buys") != "labels")


def count(value: float | None) -> str:
    """A count, with one decimal only where a mean over seeds needs it."""
    return number(value, 0 if value is None or abs(value - round(value)) < 0.05 else 1)


def yes_no(row: Mapping[str, Any]) -> str:
    if not row["questions"]:
        return NOTHING
    return f"{number(row['yes'], 0)} / {number(row['no'], 0)}"


MARKS: Final = {
    "is_best": ("best by validation", "best"),
    "is_leader": ("highest validation", "highest"),
    "tied_with_best": ("tied with the highest", "tied"),
    "like_with_like": ("not like with like", "unlike"),
    "is_baseline": ("baseline", "baseline"),
}
"""Field of a row -> its mark, in full and in a word."""


def marks(row: Mapping[str, Any], *, short: bool = False) -> list[str]:
    """What a row is: best, or highest and tied with others; not like with like; the baseline."""
    holds = {key: bool(row[key]) for key in MARKS}
    holds["is_leader"] &= not row["is_best"]
    holds["like_with_like"] = not row["like_with_like"]
    return [MARKS[key][short] for key, holds_here in holds.items() if holds_here]


def figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of the figures that methods gave of some row, in the order of the rows."""
    return list(dict.fromkeys(name for row in rows for name in row["named"]))


def figure(row: Mapping[str, Any], name: str) -> str:
    """Returns a method's figure of a row; nothing where its method gives none."""
    return mean_std(row["named"][name]) if name in row["named"] else NOTHING


def also_differs(row: Mapping[str, Any]) -> str:
    """`method.epochs 20 → 40`: what sets a row apart beside its schedule; nothing of what its name
    already says, unless it is then not like with like.
    """
    items = [
        item
        for item in row["also_differs"]
        if not (item["like"] and item["key"] in row["settings"])
    ]
    return ", ".join(
        f"{item['key']} {value_text(item['theirs'])} → {value_text(item['ours'])}" for item in items
    )


def differing(
    report: Mapping[str, Any], comparison: Mapping[str, Any]
) -> list[tuple[str, list[str]]]:
    """What rows of a comparison also differ in from its reference row, each difference with the
    labels of the rows that have it.
    """
    labels_of: dict[str, list[str]] = {}
    for index in comparison["rows"]:
        row = report["rows"][index]
        text = also_differs(row)
        if text:
            labels_of.setdefault(
                text + ("" if row["like_with_like"] else " (not like with like)"), []
            ).append(row["label"])
    return list(labels_of.items())


def reference(report: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Which row the settings of the others are held against."""
    row = report["rows"][comparison["reference"]]
    return "the baseline" if row["is_baseline"] else f"“{row['label']}”"


def value_text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return (
        "/".join(map(value_text, value)) or "none"
        if isinstance(value, list | tuple)
        else printable(str(value))
    )


def headline(report: Mapping[str, Any]) -> str:
    """What the sweep says, in a few sentences of plain text."""
    main = next((comparison for comparison in report["comparisons"] if comparison["main"]), None)
    if main is None:
        return "No trial has finished yet."
    if main["leader"] is None:
        return measured(f"No row leads: {main['no_leader']}.", report["metric"])
    row = report["rows"][main["leader"]]
    unfinished = report["trials"]["running"] + report["trials"]["pending"]
    text = (
        f"{'So far, at' if unfinished else 'At'} {number(main['bits'][1])} bits, “{row['label']}”"
        f" {measured('has the highest validation accuracy of', report['metric'])} "
    )
    aside = (
        sum(not report["rows"][index]["like_with_like"] for index in main["rows"])
        if report["rows"][main["reference"]]["is_baseline"]
        else 0
    )
    text += (
        f"{main['candidates']} candidates{' that are like with like' if aside else ''}:"
        f" {mean_std(row['validation'])} % (n = {row['n']}), "
    )
    text += f"with {mean_std(row['test'])} % on the test images."
    if main["best"] is None:
        text += f" No row is called best: {main['no_best']}."
        if row["n"] == 1:
            text += " Add seeds."
        elif row["n"] < FEW_SEEDS:
            text += f" With {row['n']} seeds only large differences are significant; add seeds."
    else:
        text += " It is the best row: every other is significantly lower on validation (Holm, 5%)."
    gap = row["difference"]["test"]
    if gap is not None and gap["mean"] is not None and gap["n"] > 1:
        text += (
            f" Against “{report['baseline']}” it has {interval(gap).removesuffix(_gap_marks(gap))}"
            " points on the test images (95% interval, "
        )
        text += (
            f"{gap['n']} paired"
            f" seeds{', their spread alone' if gap['sources'] == 'seeds' else ''}); after"
            " correction for the number of rows that is "
        )
        text += f"{'significant' if gap['told_apart'] else 'not significant'}."
    if aside:
        text += (
            f" {aside} {'row is' if aside == 1 else 'rows are'} not like with like with the"
            " baseline and cannot lead."
        )
    return text


NOT_COMPARED: Final = (
    "These rows are not at equal bits with the others, or not finished, and so never called best."
)


def apart(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows that are not compared, each with the reason; those that have nothing yet are gathered in
    one line.
    """
    lines, waiting = [], []
    for item in report["apart"]:
        row = report["rows"][item["row"]]
        if row["n"]:
            lines.append(
                (
                    row["label"],
                    (
                        f"{item['reason']}; validation {mean_std(row['validation'])}, test"
                        f" {mean_std(row['test'])} (n = {row['n']})"
                    ),
                )
            )
        elif all(seed["state"] == "failed" for seed in row["unfinished"]):
            lines.append((row["label"], item["reason"]))
        else:
            waiting.append(row["label"])
    if waiting:
        lines.append(
            (
                f"{len(waiting)} {'row' if len(waiting) == 1 else 'rows'} without a finished seed",
                "; ".join(waiting),
            )
        )
    return lines


def training_line(report: Mapping[str, Any]) -> str:
    trainings = report["stage_trainings"]
    return (
        f"{trainings['total']} stage trainings, {trainings['distinct']} distinct by configuration:"
        f" {trainings['trained']} trained, {trainings['shared']} shared"
        + (
            f", {trainings['total'] - trainings['trained'] - trainings['shared']} not done."
            if trainings["trained"] + trainings["shared"] < trainings["total"]
            else "."
        )
    )


def failure_line(item: Mapping[str, Any]) -> str:
    where = f", stage {item['stage']}" if item["stage"] is not None else ""
    kind = f"{item['kind']}: " if item["kind"] else ""
    return (
        f"{' = '.join(item['cases']) or item['trial']}, seed {item['seed']}{where}:"
        f" {kind}{item['message']}"
    )


ANCHOR_HEAD = (
    "ours, test of the last epoch",
    "published",
    "ours minus published",
    "answers yes",
    "k bits",
    "network, epochs",
    "unlike in",
    "where",
)
"""Columns of the table of published numbers, after the case."""


def _gap(item: Mapping[str, Any]) -> str:
    if not item["same_data"]:
        return "not the same data"
    unlike_network = item["gap"] is None and item["ours"]["test"]["mean"] is not None
    return "not the same network" if unlike_network else signed(item["gap"])


def anchor_cells(item: Mapping[str, Any]) -> list[str]:
    """One published row beside ours, for ANCHOR_HEAD."""
    ours, theirs = item["ours"], item["published"]
    networks = [f"{side['backbone']}, {side['epochs']}" for side in (ours, theirs)]
    return [
        f"{mean_std(ours['test'])} (n = {ours['n']})",
        " → ".join(number(value, 2) for value in theirs["top1"]),
        _gap(item),
        (
            f"{count(ours['yes'])}; theirs"
            f" {'not said' if theirs['confirmed'] is None else count(theirs['confirmed'])}"
        ),
        f"{number(ours['kbits'])}; theirs {number(theirs['kbits'])}",
        networks[0] if networks[0] == networks[1] else f"{networks[0]}; theirs {networks[1]}",
        ", ".join(item["unlike"]),
        f"{theirs['dataset']}, {theirs['table']}, {theirs['row']} [{theirs['source']}]",
    ]


def protocols(report: Mapping[str, Any]) -> list[str]:
    """What ours and theirs were made by, each said once."""
    lines: dict[str, None] = {}
    for item in report["anchors"]:
        theirs = item["published"]
        lines[f"[{theirs['source']}] {theirs['title']}: {theirs['protocol']}."] = None
    for item in report["anchors"]:
        lines[f"Ours: {item['ours']['protocol']}."] = None
    return list(lines)


def seconds_in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """At how many seconds of people's work the hours of these rows, or planned trials, are."""
    keys = ("label", "question", "measured")
    found = {tuple(row["seconds"][key] for key in keys) for row in rows if row["seconds"]}
    if len(found) != 1:
        return "the seconds that the task of each says for a label and for an answer"
    label, question, measured = found.pop()
    said = f"{question:g} s a question and {label:g} s a label"
    return f"{said} (user study of Hu et al. 2020)" if measured else f"{said}, as the task says"


def yes_share(even: Mapping[str, float] | None) -> str:
    """What the share of answers yes is called: the accuracy of the guesses, where a yes to each is
    the label of an image.
    """
    return "yes, %" if even is None else "guess accuracy"


WORTH_HEAD = ("labels for a label's bits", "labels for a label's time")


def worth(item: Mapping[str, Any]) -> list[str]:
    """How many labels the questions of a round brought for the price of a full one, in bits and in
    people's time; above 1 they paid.
    """
    return [number(item["worth"][key], 2) for key in ("per_bit", "per_second")]


def break_even_line(even: Mapping[str, float]) -> str:
    return (
        "A question buys more than a full label when guesses are right more often than"
        f" {number(even['per_bit'])} % per bit ({number(even['per_bit_with_negatives'])} % if an"
        f" answer no is credited with what it tells), or {number(even['per_second'])} % per second"
        " of a person's time."
    )


def prior_lines(report: Mapping[str, Any]) -> list[str]:
    """How often the guesses before any training were right, of the images that were asked about,
    beside what a question must reach to be worth its bit. Nothing else is known of them.
    """
    even, lines = report["break_even"], []
    for row in report["rows"]:
        first = next(iter(row["rounds"]), None)
        if row["start"] in (None, "method") or first is None:
            continue
        right = first["guess_accuracy"]["mean"]
        if right is None or even is None:
            continue
        over = "above" if right > even["per_bit"] else "not above"
        lines.append(
            f"{row['label']}: guesses by start {row['start']}, before any training, were right in"
            f" {number(right)} % of {count(first['questions'])} answers of round 1; that is {over}"
            f" the {number(even['per_bit'])} % from which a question buys more than a label."
        )
    return lines


def notes(report: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the numbers, one sentence or two each."""
    share = 100 * report["rules"]["equal_bits_share"]
    lines = [
        report["rules"]["choice"],
        (
            f"Rows are compared when what they spent differs by at most {share:.0f}% of the budget,"
            " or of the most that one of them spent where that is less. The labels of a fixed"
            " validation split are priced beside the budget and are the same for every row."
        ),
        (
            "± is the sample standard deviation over n seeds; [..] is the"
            f" {report['rules']['interval']}."
        ),
        f"{report['rules']['told_apart'][0].upper()}{report['rules']['told_apart'][1:]}.",
        f"At equal bits, {report['rules']['like']}.",
        (
            f"Validation and test are {report['metric']} in percent, of the model that a method"
            " guesses by (Mean Teacher's is the averaged one); yes, no and wasted are means over"
            " the finished seeds."
        ),
        training_line(report),
        *report["tasks"],
    ]
    mixed = [
        f"{name}s {', '.join(values)}"
        for name, values in report["made_on"].items()
        if len(values) > 1 and name != "backbone"
    ]
    if mixed:
        lines.append(
            f"Trained on unlike {' and '.join(mixed)}: part of a difference may come from that."
        )
    if report["damaged"]:
        lines.append(f"Unreadable lines were left out: {', '.join(report['damaged'])}.")
    return lines
