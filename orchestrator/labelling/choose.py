"""Which questions a round asks: the guess for each image that may be asked, and those that the
query strategy ranks first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.protocols import Draw, Query
from trainers.stage import Classes, Ids

RAW = "raw_"
"""Prefix of the arrays that leave no class out."""


def choose(
    query: Query,
    scores: Mapping[str, npt.NDArray[Any]],
    eligible: Ids,
    quota: int,
    *,
    seed: int,
    round: int,
    mask_refused: bool,
) -> tuple[Ids, Classes, npt.NDArray[np.float32]]:
    """Returns the ids to ask about, ascending, the class to ask each about, and the model's
    probability of it; min(quota, |eligible|) of them.

    Args:
        scores: arrays of the pool by ascending item id (trainers.stage.SCORE_ARRAYS).
        mask_refused: guess, and rank, by the classes not refused. False: by all classes, the best
            of which may have been refused before (the published code).

    Raises:
        ValueError: an eligible image has no scores.
    """
    ids = np.sort(eligible)
    at = np.searchsorted(scores["item_ids"], ids)
    if np.any(at >= scores["item_ids"].size) or not np.array_equal(scores["item_ids"][at], ids):
        raise ValueError("the scores do not cover every eligible image")
    prefix = "" if mask_refused else RAW
    guesses, confidences = scores[f"{prefix}guess"][at], scores[f"{prefix}confidence"][at]
    # Only what is read: the stage may leave out arrays that no strategy of the sweep needs.
    needed = {
        name: scores[f"{prefix}{name}" if f"{prefix}{name}" in scores else name][at]
        for name in query.needs
    }
    draw = Draw(ids, guesses, needed, seed, round, min(quota, ids.size))
    first = np.sort(draw.order(query.rank(draw))[:quota])
    return ids[first], guesses[first].astype(np.int32), confidences[first].astype(np.float32)
