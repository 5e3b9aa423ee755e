"""Which questions a round asks: those that the query strategy ranks first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.protocols import Draw, Query, Scores, Task
from orchestrator.labelling.questions import Questions
from search_spaces.reading.config import Bought
from trainers.errors import UserError
from trainers.stage import Ids, StageInputs


def choose(
    task: Task,
    query: Query,
    scores: Scores,
    eligible: Ids,
    quota: int,
    *,
    known: Callable[[], StageInputs],
    seed: int,
    round: int,
    mask_refused: bool,
    num_classes: int = 0,
    buys: Bought = "answers",
) -> Questions:
    """Returns the questions to ask, ascending; as many as the quota and the task allow.

    Args:
        scores: arrays of the pool by ascending item id (trainers.stage.SCORE_ARRAYS).
        eligible: images that may be asked about.
        known: what is known of the pool; called where the task or the strategy looks at it.
        mask_refused: guess, and rank, by the classes not refused. False: by all classes, the best
            of which may have been refused before (the published code).
        num_classes: of the data set, for strategies that count clusters by it.
        buys: what the round buys; labels are bought once of an image, however many questions there
            are about it.

    Raises:
        ValueError: an eligible image has no scores.
    """
    asked, needed = task.questions(
        np.sort(eligible), scores, query.needs, known, mask_refused=mask_refused
    )
    labelled: Scores = {}
    if wanted := getattr(query, "needs_of_labelled", ()):
        at = np.searchsorted(scores["item_ids"], np.unique(known().label_ids))
        labelled = {name: scores[name][at] for name in wanted}
    several = task.several_questions
    most = 1 if buys == "labels" else getattr(task, "per_image", None)
    possible = len(asked)
    if several and most is not None:
        possible = int(np.minimum(np.unique(asked.ids, return_counts=True)[1], most).sum())
    draw = Draw(asked, needed, seed, round, min(quota, possible), several, labelled, num_classes)
    rank = np.asarray(query.rank(draw))
    if rank.shape != (len(asked),):
        raise UserError(
            f"query strategy {query.name}: its rank has the form {list(rank.shape)} for"
            f" {len(asked)} questions; it must give one number a question"
        )
    order = draw.order(rank)
    if several and most is not None:
        order = order[_turns(asked.ids[order]) < most]
    return asked.take(np.sort(order[:quota]))


def _turns(ids: Ids) -> npt.NDArray[np.int64]:
    """Returns [n] how many of the questions before each are about the same image."""
    together = np.argsort(ids, kind="stable")
    held = ids[together]
    first = np.searchsorted(held, held)
    turns = np.empty(ids.size, np.int64)
    turns[together] = np.arange(ids.size) - first
    return turns
