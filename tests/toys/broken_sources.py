"""Data sources that break the laws of data sources, one each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.data.protocols import Loaded, Progress
from search_spaces.reading.config import Contents
from tests.toys.blobs import Blobs

calls = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Broken(Blobs):
    """Breaks no law yet."""


class KeepsLabels(Broken):
    """Puts its labels where a trainer reads."""

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        loaded = super().load(folder, on_progress)
        np.save(folder / "labels.npy", loaded.labels["train"])
        return loaded


class Miscounts(Broken):
    def contents(self) -> Contents:
        found = super().contents()
        return replace(found, train_items=found.train_items + 1)


class LosesAClass(Broken):
    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        loaded = super().load(folder, on_progress)
        return replace(loaded, labels={s: np.maximum(y, 1) for s, y in loaded.labels.items()})


class OtherNames(Broken):
    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        loaded = super().load(folder, on_progress)
        return replace(loaded, class_names=loaded.class_names[::-1])


class Doubles(Broken):
    """Keeps its points in double precision."""

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        loaded = super().load(folder, on_progress)
        np.save(folder / "train.npy", np.load(folder / "train.npy").astype(float))
        return loaded


class NeverTheSame(Broken):
    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        return Blobs(spread=1 + next(calls)).load(folder, on_progress)


class NeverFoundAgain(Broken):
    def signature(self) -> str:
        return str(next(calls))


class LoadsADecoder(Broken):
    def contents(self) -> Contents:
        import PIL.Image  # noqa: F401

        return super().contents()


class Forgets(Broken):
    """Has a setting that no spec can write."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        object.__setattr__(self, "spread", 99.0)


@dataclass(frozen=True, kw_only=True)
class TripsOverAPlace(Broken):
    """Lies somewhere, and where it does not, says nothing that a user understands."""

    path: str

    def contents(self) -> Contents:
        if not Path(self.path).exists():
            raise KeyError(self.path)
        return super().contents()
