"""The pool's rules once more, slowly: one image at a time, from the segments as any Parquet reader
sees them.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pyarrow.parquet as pq

from orchestrator.storage.segments import Segments


@dataclass
class Image:
    candidates: set[int]
    label: int | None = None
    source: str = ""
    refused: set[int] = field(default_factory=set)
    planned_in: list[int] = field(default_factory=list)


@dataclass
class Reference:
    """The state of a trial by the published rules; `problems` lists every broken one."""

    images: list[Image] = field(default_factory=list)
    spent: float = 0.0
    plans: dict[int, dict[int, int]] = field(default_factory=dict)
    answers: dict[int, dict[int, int]] = field(default_factory=dict)
    wasted: int = 0
    conflicts: int = 0
    problems: list[str] = field(default_factory=list)
    terms: dict[str, Any] = field(default_factory=dict)

    @property
    def unit(self) -> float:
        """Bits of one question, or of one label where rounds buy labels."""
        labels = self.terms.get("buys", "answers") == "labels"
        return math.log2(self.terms["num_classes"]) if labels else 1.0

    def charged(self, number: int) -> int:
        return sum(answer in (0, 1) for answer in self.answers.get(number, {}).values())

    @property
    def quotas(self) -> list[int]:
        if not self.terms["split"]:
            return list(self.terms["quotas"])
        bought = sum(image.source.startswith("initial") for image in self.images)
        left = math.floor(
            self.terms["budget_bits"] - bought * math.log2(self.terms["num_classes"]) + 1e-6
        )
        ideal = [
            left
            * Fraction(repr(share))
            / sum(Fraction(repr(other)) for other in self.terms["split"])
            for share in self.terms["split"]
        ]
        quotas = [math.floor(part) for part in ideal]
        while sum(quotas) < left:
            # The one that lacks most, of equal ones the first.
            at = max(range(len(quotas)), key=lambda i: (ideal[i] - quotas[i], -i))
            quotas[at] += 1
        return quotas

    def carried(self, number: int) -> int:
        return sum(
            self.quotas[earlier - 1] - self.charged(earlier)
            for earlier in self.plans
            if earlier < number
        )


def replayed(segments: Segments) -> Reference:
    reference = Reference()
    for name in segments.names():
        file = pq.ParquetFile(io.BytesIO(segments.get(name)))
        meta = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
        rows = file.read().to_pylist()
        rules = {"labels": _labels, "plan": _plan, "answers": _answers, "label_answers": _bought}
        rules[meta["kind"]](reference, meta, rows)
    return reference


def _labels(to: Reference, meta: dict[str, str], rows: list[dict[str, Any]]) -> None:
    to.terms = json.loads(meta["terms"])
    num_classes = to.terms["num_classes"]
    to.images = [Image(set(range(num_classes))) for _ in range(to.terms["pool_items"])]
    for row in rows:
        image = to.images[row["id"]]
        image.candidates, image.label, image.source = {row["label"]}, row["label"], row["role"]
        to.spent += math.log2(num_classes) if row["role"] != "split_validation" else 0.0


def _plan(to: Reference, meta: dict[str, str], rows: list[dict[str, Any]]) -> None:
    number = int(meta["round"])
    if number in to.plans:
        to.problems.append(f"round {number} was planned twice")
    if (
        len(rows) > to.quotas[number - 1] + to.carried(number)
        or to.spent + len(rows) * to.unit > to.terms["budget_bits"] + 1e-6
    ):
        to.problems.append(f"round {number} holds more than quota or budget")
    to.plans[number], to.answers[number] = {}, {}
    for row in rows:
        image = to.images[row["id"]]
        if row["id"] in to.plans[number]:
            to.problems.append(f"round {number} asks {row['id']} twice")
        if image.label is not None or (to.terms["requery"] == "never" and image.planned_in):
            to.problems.append(f"round {number} asks {row['id']}, which it may not")
        image.planned_in.append(number)
        to.plans[number][row["id"]] = row["guess"]


def _bought(to: Reference, meta: dict[str, str], rows: list[dict[str, Any]]) -> None:
    number = int(meta["round"])
    if to.terms.get("buys") != "labels":
        to.problems.append(f"round {number} holds labels, and rounds buy answers")
    for row in rows:
        image, label = to.images[row["id"]], row["label"]
        # A segment in which an image has none, or several, holds lists.
        held = label if isinstance(label, list) else [label]
        if row["id"] not in to.plans[number] or row["id"] in to.answers[number]:
            to.problems.append(f"round {number} labels {row['id']} without a plan, or twice")
        to.answers[number][row["id"]] = row["answer"]
        if row["answer"] == 1:
            to.spent += to.unit
            image.candidates, image.label, image.source = set(held), held[0], "bought"
    if to.spent > to.terms["budget_bits"] + 1e-6:
        to.problems.append("more bits than the budget were charged")


def _answers(to: Reference, meta: dict[str, str], rows: list[dict[str, Any]]) -> None:
    number = int(meta["round"])
    for row in rows:
        image, guess, answer = to.images[row["id"]], row["guess"], row["answer"]
        if to.plans[number].get(row["id"]) != guess or row["id"] in to.answers[number]:
            to.problems.append(f"round {number} answers {row['id']} without a question, or twice")
        to.answers[number][row["id"]] = answer
        if answer == -1:
            continue
        to.spent += 1
        to.wasted += guess in image.refused
        if answer == 1:
            to.conflicts += guess in image.refused
            image.refused.discard(guess)
            image.candidates, image.label, image.source = {guess}, guess, "confirmed"
        else:
            image.refused.add(guess)
            image.candidates.discard(guess)
            if len(image.candidates) == 1:
                image.label, image.source = next(iter(image.candidates)), "eliminated"
    if to.spent > to.terms["budget_bits"] + 1e-6:
        to.problems.append("more bits than the budget were charged")
