"""Initial labels where a query strategy chooses them: by the feature vectors alone, before there is
a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.first_labels import CHOICES, Choice, Drawn, too_few_images
from orchestrator.labelling.protocols import Draw, Oracle, Query
from orchestrator.labelling.questions import Questions
from orchestrator.labelling.terms import PoolTerms
from search_spaces.reading.initial_choices import InitialChoiceName
from trainers.errors import DataError
from trainers.stage import Ids


@dataclass(frozen=True, slots=True)
class ByStrategy:
    """As many images as `uniform` draws, in the order in which a strategy ranks them as a round 0
    of which nothing is known. An image that whoever labels skips is replaced by the next.
    """

    strategy: Query
    features: Callable[[], npt.NDArray[np.float32]]
    """Gives the vector of every training image, [pool_items, D]; called when they are ranked."""

    def next(self, terms: PoolTerms, oracle: Oracle, without: Ids, drawn: Drawn) -> Ids:
        wanted = terms.initial_labels_per_class * terms.num_classes
        missing = wanted - int(np.count_nonzero(drawn.given))
        if not missing:
            return np.empty(0, np.int64)
        ids = np.setdiff1d(np.arange(terms.pool_items), without, assume_unique=True)
        if ids.size < drawn.ids.size + missing:
            raise too_few_images(terms, wanted, ids.size, drawn)
        # Ranked alike each time, whatever was drawn: the next one is the next of the same order.
        vectors = np.asarray(self.features()[ids], np.float32)
        draw = Draw(
            questions=Questions.singles(ids, np.zeros(ids.size, np.int32)),
            scores={"embedding": vectors},
            seed=terms.seed,
            round=0,
            quota=wanted,
            labelled={"embedding": vectors[:0]},
            num_classes=terms.num_classes,
        )
        order = ids[draw.order(self.strategy.rank(draw))]
        return order[drawn.ids.size : drawn.ids.size + missing]


def choice_of(name: str, strategy: Query | None, images_dir: Path) -> Choice:
    """Returns how the initial labels of a trial are chosen: by a strategy where there is one, else
    by the name.

    Args:
        images_dir: of the prepared data, where this machine has it. It holds no labels.
    """
    if strategy is None:
        return CHOICES[cast(InitialChoiceName, name)]
    return ByStrategy(strategy, partial(_features, images_dir / "train.npy"))


def _features(path: Path) -> npt.NDArray[np.float32]:
    """Returns the vectors of a file of the cache, mapped into memory."""
    try:
        vectors: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: the decoded data is gone or damaged ({error}). Make it again with:"
            " orchestrate data prepare"
        ) from None
    return vectors
