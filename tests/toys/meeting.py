"""An oracle whose first answers take long: those of one seed wait for the questions of others."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import Answers
from orchestrator.labelling.oracles.simulated import Around, Labels
from orchestrator.labelling.protocols import OraclePlace, Simulation
from orchestrator.labelling.questions import Questions

LIMIT_SECONDS = 150.0
"""A call that takes longer is taken for dead."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Right, once questions of so many trials have been asked."""

    name: ClassVar[str] = "meeting"

    folder: str
    """Where each trial says that it asks, in a file with its name, and by which process."""
    trials: int

    def open(self, place: OraclePlace) -> Simulation:
        return OpenMeeting(Labels().open(place), Path(self.folder), place.trial, self.trials)


class OpenMeeting(Around):
    def __init__(self, inner: Simulation, folder: Path, trial: str, trials: int) -> None:
        super().__init__(inner)
        self._folder, self._trial, self._trials = folder, trial, trials

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        (self._folder / self._trial).write_text(str(os.getpid()))
        deadline = time.monotonic() + LIMIT_SECONDS
        while sum(1 for _ in self._folder.iterdir()) < self._trials:
            if time.monotonic() > deadline:
                raise TimeoutError(f"trial {self._trial} asked alone for {LIMIT_SECONDS:g} s")
            time.sleep(0.05)
        return super().answer(asked, repeats)
