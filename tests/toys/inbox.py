"""An oracle of people: labels and answers come through a folder, whenever they come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import PENDING, Answers
from orchestrator.labelling.protocols import GivenLabels, OraclePlace
from orchestrator.labelling.questions import Questions
from trainers.stage import Ids


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Whoever labels puts `labels.json` (image -> class, or the list of its classes) and
    `answers.json` (image -> class -> 1 or 0) into a folder.
    """

    name: ClassVar[str] = "inbox"
    simulated: ClassVar[bool] = False

    folder: str
    """Where labels and answers are put."""

    def open(self, place: OraclePlace) -> OpenInbox:
        return OpenInbox(Path(self.folder))


@dataclass(frozen=True)
class OpenInbox:
    folder: Path

    def label(self, ids: Ids, kind: str) -> GivenLabels:
        held = self._read("labels.json")
        sets = {
            int(image): tuple(said) if isinstance(said, list) else (said,)
            for image, said in held.items()
        }
        return GivenLabels.of(sets, ids)

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        held = self._read("answers.json")
        pairs = zip(asked.ids.tolist(), asked.guesses.tolist(), strict=True)
        told = [held.get(str(image), {}).get(str(guess), PENDING) for image, guess in pairs]
        return np.array(told, np.int8)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found
