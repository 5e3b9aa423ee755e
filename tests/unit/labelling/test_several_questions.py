"""Rounds that may ask about an image more than once: how often is decided after the strategy has
ranked, so that no strategy is kept from a question.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.labelling.choose import choose
from orchestrator.labelling.protocols import Draw, Rank
from orchestrator.labelling.questions import Questions


@dataclass(frozen=True)
class AllPairs:
    """Every class of every image may be asked about."""

    classes: int
    per_image: int | None = None
    several_questions: ClassVar[bool] = True

    def questions(self, images: Any, scores: Any, *_: Any, **__: Any) -> Any:
        ids = np.repeat(images, self.classes)
        return Questions.singles(ids, np.tile(np.arange(self.classes), images.size)), {}


@dataclass
class Ranked:
    """Ranks as it is told, and notes the quota that it saw."""

    values: Any
    needs: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str] = "ranked"
    saw: int = -1

    def rank(self, draw: Draw) -> Rank:
        self.saw, self.draw = draw.quota, draw
        return np.asarray(self.values)


def ask(task: AllPairs, rank: Any, images: int, quota: int, **more: Any) -> tuple[Any, Ranked]:
    query = Ranked(rank)
    plugins: list[Any] = [task, query]
    asked = choose(
        *plugins,
        {"item_ids": np.arange(images)},
        np.arange(images),
        quota,
        known=lambda: pytest.fail("nothing looks at what is known"),
        seed=3,
        round=1,
        mask_refused=True,
        **more,
    )
    return asked, query


@given(
    st.integers(1, 8),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 6)),
    st.integers(0, 30),
    st.integers(0, 2**32 - 1),
)
def test_of_each_image_the_first_are_asked_that_the_strategy_ranks(
    images: int, classes: int, most: int | None, quota: int, seed: int
) -> None:
    rank = np.random.default_rng(seed).integers(0, 4, images * classes)
    asked, query = ask(AllPairs(classes, most), rank, images, quota)
    left, taken = Counter[int](), []
    for at in query.draw.order(rank).tolist():
        image = at // classes
        if len(taken) < quota and (most is None or left[image] < most):
            left[image] += 1
            taken.append(at)
    assert (asked.ids * classes + asked.guesses).tolist() == sorted(taken)
    assert len(asked) == min(quota, images * min(classes, most or classes)) == query.saw


def test_a_label_is_bought_once_of_an_image() -> None:
    asked, _ = ask(AllPairs(4, 3), np.arange(20), 5, 3, buys="labels")
    assert asked.ids.tolist() == [0, 1, 2]
    assert asked.guesses.tolist() == [0, 0, 0]
