"""What the ledger verbs print: the segments, the questions, and the pool rebuilt from them
alone.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.labelling.answers import NO, PENDING, SKIPPED, YES
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import Ledger, LedgerError, Segment, segment_name
from orchestrator.labelling.questions import ClassSets
from orchestrator.labelling.state import PoolState
from orchestrator.labelling.terms import Round
from orchestrator.storage.segments import Segments, open_segments

Place = Segments | str | Path
"""A ledger, or the folder or S3 address in which it is."""

_WORDS = {YES: "yes", NO: "no", SKIPPED: "skipped", PENDING: "open"}


def show(location: Place) -> list[dict[str, Any]]:
    """One row a segment: segment, file, kind, round, rows, yes, no, skipped, bits (charged to the
    budget), sha256.
    """
    segments = read_segments(location)
    label_bits = state_of(segments, location).terms.label_bits
    return [_row(segment, label_bits) for segment in segments]


def questions(location: Place, round: int | None = None) -> list[dict[str, Any]]:
    """One row a question, of all rounds or of one: round, id, guess (a class, or the list of those
    asked about), confidence, answer (yes, no, skipped, open). Where rounds buy labels, a row a
    label: its answer is `labelled`, skipped or open, and `label` the class or the list of them.
    """
    state = state_of(read_segments(location), location)
    rounds = [one for one in state.rounds if round in (None, one.number)]
    if state.terms.buys == "labels":
        return [row for one in rounds for row in _bought(one, state)]
    return [row for one in rounds for row in _questions(one)]


def verify(location: Place) -> dict[str, Any]:
    """Checks that the chain is whole and says nothing impossible. Returns segments, rows, and the
    SHA-256 of the last one, which stands for all.

    Raises:
        LedgerError: naming the first segment that is missing, damaged or impossible.
    """
    segments = read_segments(location)
    state_of(segments, location)
    return {
        "segments": len(segments),
        "rows": sum(map(len, segments)),
        "sha256": segments[-1].digest,
    }


def replay(location: Place, after_round: int | None = None) -> PoolState:
    """Rebuilds the pool's state after a round (0: before any question), or after all, from the
    segments alone.

    Raises:
        LedgerError: the ledger is empty, damaged or impossible.
    """
    segments = read_segments(location)
    return state_of(
        [segment for segment in segments if after_round is None or segment.round <= after_round],
        location,
    )


def read_segments(location: Place) -> tuple[Segment, ...]:
    """Returns every segment of a ledger, its chain verified."""
    return Ledger(_opened(location)).read()


def _opened(location: Place) -> Segments:
    return open_segments(location) if isinstance(location, str | Path) else location


def state_of(segments: tuple[Segment, ...] | list[Segment], location: Place) -> PoolState:
    """Returns the pool's state after these segments; raises LedgerError where there are none."""
    state = fold(None, segments)
    if state is None and segments:
        raise LedgerError(
            f"{_opened(location).location}: round 0 is not over: initial labels are still to come"
        )
    if state is None:
        raise LedgerError(
            f"{_opened(location).location}: no ledger here; {segment_name(0)} is missing. A trial's"
            " ledger is in trials/<id>/ledger of the sweep's folder"
        )
    return state


def _row(segment: Segment, label_bits: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "segment": segment.number,
        "file": segment_name(segment.number),
        "kind": segment.kind,
        "round": segment.round,
        "rows": len(segment),
    }
    yes = no = skipped = 0
    bits = 0.0
    if segment.kind == "answers":
        yes, no, skipped = (
            int(np.count_nonzero(segment.columns["answer"] == answer))
            for answer in (YES, NO, SKIPPED)
        )
        bits = float(yes + no)
    elif segment.kind == "label_answers" and segment.round:
        given = segment.columns["answer"] == YES
        skipped = int(np.count_nonzero(~given))
        bits = float(np.count_nonzero(given)) * label_bits
    elif segment.kind == "labels":
        # Role 2 is the validation set beside the budget.
        bits = float(np.count_nonzero(segment.columns["role"] < 2)) * label_bits
    return row | {"yes": yes, "no": no, "skipped": skipped, "bits": bits, "sha256": segment.digest}


def _guesses(sets: ClassSets) -> list[int] | list[list[int]]:
    classes: list[int] = sets.classes.tolist()
    if sets.single:
        return classes
    return [classes[a:b] for a, b in itertools.pairwise(sets.starts.tolist())]


def _bought(one: Round, state: PoolState) -> list[dict[str, Any]]:
    held = state.facts.positives
    first, last = (np.searchsorted(held.ids, one.ids, side).tolist() for side in ("left", "right"))
    rows = _questions(one)
    for row, start, end in zip(rows, first, last, strict=True):
        row["answer"] = "labelled" if row["answer"] == "yes" else row["answer"]
        labels = held.classes[start:end].tolist()
        row["label"] = labels if state.terms.task.several_labels else next(iter(labels), None)
    return rows


def _questions(one: Round) -> list[dict[str, Any]]:
    columns = (
        one.ids.tolist(),
        _guesses(one.sets),
        one.confidences.tolist(),
        one.answers.tolist(),
    )
    return [
        {
            "round": one.number,
            "id": item,
            "guess": guess,
            "confidence": confidence,
            "answer": _WORDS[answer],
        }
        for item, guess, confidence, answer in zip(*columns, strict=True)
    ]
