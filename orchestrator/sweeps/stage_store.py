"""Trained stages, shared by every trial that needs the same one: each is trained once, committed
once and never changed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.storage.files import commit_file
from orchestrator.storage.locks import hold
from orchestrator.sweeps.layout import checked_name
from orchestrator.sweeps.records import CHECKSUM, checksum, encode_object, parse_object
from search_spaces.reading.schema import written_method
from trainers.errors import UserError
from trainers.mean_teacher.settings import MethodConfig
from trainers.stage import SCORE_ARRAYS, StageInputs, StageOutcome, StageRequest


class CannotGoOn(UserError):
    """The engine is at fault and not the trial, which stays unfinished and may go on later: nothing
    can train, or the sweep is being stopped.
    """


class StageDamaged(UserError):
    """A committed artefact is missing or is not what was committed."""


def stage_key(
    *,
    method: MethodConfig,
    fingerprint: str,
    inputs: StageInputs,
    seed: int,
    draw: int,
    parent: str | None,
    world_size: int,
    device_kind: str,
    salt: str = "",
) -> str:
    """Hex SHA-256 of everything that the result of a stage can depend on, and of nothing else.

    Args:
        method: cut to the stage (MeanTeacherConfig.for_stage).
        fingerprint: of the data (orchestrator.data.prepare).
        draw: rounds with questions before the stage; never the stage's own number, so that an empty
            round before it changes nothing.
        parent: key of the stage before; enters only where the method carries weights over, so that
            a schedule's past is in the labels alone.
        salt: sharing switched off puts the trial's id here; empty otherwise.
    """
    read = method.settings_read(
        has_negatives=bool(inputs.negative_ids.size), has_parent=parent is not None
    )
    carried = parent if read.get("init") == "continue" else None
    parts = {
        "method": type(method).name,
        "version": type(method).version,
        "settings": written_method(type(method), read),
        "data": fingerprint,
        "inputs": inputs.digest(),
        "seed": seed,
        "draw": draw,
        "parent": carried,
        "world_size": world_size,
        "device": device_kind,
        "salt": salt,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StageArtefact:
    """A committed stage."""

    folder: Path
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.record["metrics"]
        return metrics

    def trained_for(self, trial: str, stage: int) -> bool:
        """Returns whether this stage of this trial had it trained; every other one that uses it
        shares it.
        """
        return self.record.get("trained_for") == {"trial": trial, "stage": stage}

    def file(self, role: str) -> Path:
        return self.folder / str(self.record["files"][role]["name"])

    def scores(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays SCORE_ARRAYS of this stage.

        Raises:
            StageDamaged: the file is missing or its checksum differs from the committed one.
        """
        path, committed = self.file("scores"), self.record["files"]["scores"]["sha256"]
        if not path.is_file() or sha256_of(path) != committed:
            raise StageDamaged(
                f"{path}: missing or damaged (its SHA-256 is not the committed"
                f" {committed[:12]}...). Remove the folder {self.folder} to train this stage again."
            )
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in SCORE_ARRAYS}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class StageStore:
    """Folder `stages/` of a sweep: one folder a key, whose `record.json` is what commits it."""

    root: Path

    def folder(self, key: str) -> Path:
        """Raises ValueError where the key, which may come from a file, is no plain name."""
        return self.root / checked_name(key)

    def find(self, key: str) -> StageArtefact | None:
        """Returns the committed artefact of this key; None if there is none.

        Raises:
            StageDamaged: its record is not what was committed.
        """
        path = self.folder(key) / "record.json"
        try:
            found = parse_object(path.read_bytes())
            # Stages of 0.1.0 have no checksum, and are read by `ledger verify` alone.
            if CHECKSUM in found and found[CHECKSUM] != checksum(found):
                raise ValueError("its content does not match its checksum")
            if (
                found["key"] != key
                or not all(_is_file_entry(entry) for entry in found["files"].values())
                or not isinstance(found["metrics"], dict)
            ):
                raise ValueError("it is the record of another stage")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StageDamaged(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StageDamaged(
                f"{path}: damaged ({error}). Remove the folder {path.parent} to train this stage"
                " again."
            ) from error
        return StageArtefact(path.parent, found)

    def commit(self, request: StageRequest, outcome: StageOutcome) -> StageArtefact:
        """Returns the committed artefact of the request's key: `outcome` if it came first, else the
        one that did.
        """
        key = request.key
        folder = self.folder(key)
        files = {
            role: {
                "name": name,
                "sha256": sha256_of(folder / name),
                "bytes": (folder / name).stat().st_size,
            }
            for role, name in sorted(outcome.files.items())
        }
        record = {
            "key": key,
            "files": files,
            "metrics": outcome.metrics,
            "trained_for": {"trial": request.trial, "stage": request.stage},
        }
        commit_file(folder / "record.json", encode_object(record), replace=False)
        committed = self.find(key)
        if committed is None:
            raise StageDamaged(
                f"{folder / 'record.json'}: was written and is gone; is the folder being cleaned"
                " while the sweep runs?"
            )
        return committed


class TrainsStages(Protocol):
    """Trains one stage somewhere: in this process, in processes of its own, on a cluster."""

    @property
    def world_size(self) -> int: ...

    @property
    def device_kind(self) -> str: ...

    def train(self, request: StageRequest) -> StageOutcome: ...


class ObtainsStages(Protocol):
    """What a trial asks for its stages: the artefact of a request, trained now or found."""

    @property
    def world_size(self) -> int: ...

    @property
    def device_kind(self) -> str: ...

    def obtain(self, request: StageRequest) -> StageArtefact: ...


def _is_file_entry(entry: Any) -> bool:
    """Whether an entry of `files` names a file of the stage's own folder."""
    name = entry["name"]
    return isinstance(name, str) and Path(name).name == name and isinstance(entry["sha256"], str)


def new_attempt() -> str:
    return uuid.uuid4().hex[:8]


@dataclass(frozen=True, slots=True)
class LockedStages:
    """Stages of one machine: one process trains a stage while the others that want it wait; a
    holder's death lets the next one go on from its checkpoint.
    """

    store: StageStore
    launcher: TrainsStages

    @property
    def world_size(self) -> int:
        return self.launcher.world_size

    @property
    def device_kind(self) -> str:
        return self.launcher.device_kind

    def obtain(self, request: StageRequest) -> StageArtefact:
        found = self.store.find(request.key)
        if found is not None:
            return found
        with hold(request.work_dir / "lock", wait=True):
            found = self.store.find(request.key)
            if found is not None:
                return found
            outcome = self.launcher.train(request)
            return self.store.commit(request, outcome)
