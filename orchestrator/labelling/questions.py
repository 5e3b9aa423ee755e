"""Questions about images, and the sets of classes that questions and labels name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.keyed import keyed_uint64
from trainers.stage import Classes, Ids


@dataclass(frozen=True, slots=True, eq=False)
class ClassSets:
    """n sets of classes, one after the other. Where every set has one class, `classes` is them."""

    starts: npt.NDArray[np.int64]
    """[n + 1] set i is classes[starts[i] : starts[i + 1]]."""
    classes: Classes
    """[m] ascending within a set, none twice in it."""

    @classmethod
    def singles(cls, classes: npt.NDArray[np.integer]) -> ClassSets:
        """Returns sets of one class each, from [n] classes."""
        return cls(np.arange(len(classes) + 1), np.asarray(classes).astype(np.int32, copy=False))

    @classmethod
    def of(cls, sets: Iterable[Iterable[int]]) -> ClassSets:
        """Returns the sets that these collections of classes are."""
        lists = [sorted(set(one)) for one in sets]
        starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return cls(starts, np.array([c for one in lists for c in one], np.int32))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """[n] how many classes each set has."""
        return np.diff(self.starts)

    @property
    def single(self) -> bool:
        """Whether every set has one class."""
        return len(self.classes) == len(self) and bool(np.all(self.sizes == 1))

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """[m] the set that each of `classes` is in."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def take(self, at: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> ClassSets:
        """Returns the sets at these places, or where a mask says so."""
        at = np.flatnonzero(at) if at.dtype == np.bool_ else at
        sizes = self.sizes[at]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        return ClassSets(starts, self.classes[np.repeat(self.starts[at], sizes) + within])

    def codes(self) -> npt.NDArray[np.int64]:
        """Returns [n] a number for each set: its class where it has one, else a negative number.

        Equal sets have equal numbers; two different sets have the same one with a chance of 2^-63.
        """
        if self.single:
            return self.classes.astype(np.int64)
        members = keyed_uint64("set of classes", self.classes) if len(self.classes) else None
        codes = np.zeros(len(self), np.uint64)
        if members is not None:
            np.add.at(codes, self.rows, members)
        found = -1 - (codes >> np.uint64(1)).astype(np.int64)
        one = self.sizes == 1
        found[one] = self.classes[self.starts[:-1][one]]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Questions:
    """n questions "is this image one of these classes?", each of one bit, in parallel arrays."""

    ids: Ids
    """[n] the images. Those of a round ascend by (id, code of the set), none twice."""
    sets: ClassSets
    """[n] the classes that each is about: almost always one."""
    confidences: npt.NDArray[np.float32]
    """[n] the model's probability that the answer is yes."""

    @classmethod
    def singles(
        cls,
        ids: Ids,
        classes: npt.NDArray[np.integer],
        confidences: npt.NDArray[np.floating] | None = None,
    ) -> Questions:
        """Returns questions about one class each."""
        given = np.zeros(len(ids), np.float32) if confidences is None else confidences
        return cls(
            ids=np.asarray(ids).astype(np.int64, copy=False),
            sets=ClassSets.singles(classes),
            confidences=given.astype(np.float32, copy=False),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def guesses(self) -> Classes:
        """[n] the class of each question.

        Raises:
            ValueError: some question is about several classes.
        """
        if not self.sets.single:
            raise ValueError("some of these questions are about several classes")
        return self.sets.classes

    def take(self, at: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Questions:
        """Returns the questions at these places, or where a mask says so."""
        sets = ClassSets.singles(self.guesses[at]) if self.sets.single else self.sets.take(at)
        return Questions(ids=self.ids[at], sets=sets, confidences=self.confidences[at])

    def ascending(self) -> Questions:
        """Returns the same questions in the order of a plan."""
        return self.take(np.lexsort((self.sets.codes(), self.ids)))
