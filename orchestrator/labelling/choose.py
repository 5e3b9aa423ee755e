"""Which questions a round asks: those that the query strategy ranks first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from orchestrator.labelling.protocols import Draw, Query, Scores, Task
from orchestrator.labelling.questions import Questions
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
) -> Questions:
    """Returns the questions to ask, ascending; as many as the quota and the task allow.

    Args:
        scores: arrays of the pool by ascending item id (trainers.stage.SCORE_ARRAYS).
        eligible: images that may be asked about.
        known: what is known of the pool; called where the task or the strategy looks at it.
        mask_refused: guess, and rank, by the classes not refused. False: by all classes, the best
            of which may have been refused before (the published code).
        num_classes: of the data set, for strategies that count clusters by it.

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
    draw = Draw(asked, needed, seed, round, min(quota, len(asked)), several, labelled, num_classes)
    rank = np.asarray(query.rank(draw))
    if rank.shape != (len(asked),):
        raise UserError(
            f"query strategy {query.name}: its rank has the form {list(rank.shape)} for"
            f" {len(asked)} questions; it must give one number a question"
        )
    return asked.take(np.sort(draw.order(rank)[:quota]))
