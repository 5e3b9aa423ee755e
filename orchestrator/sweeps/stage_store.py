"""Trained stages, shared by every trial that needs the same one: each is trained once, committed
once and never changed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from orchestrator.storage.files import commit_file
from orchestrator.storage.locks import hold
from orchestrator.sweeps.layout import checked_name
from orchestrator.sweeps.records import CHECKSUM, checksum, encode_object, parse_object
from search_spaces.reading.schema import written_method, written_plan
from trainers.artefacts import SCORES, StageDamaged, StageFile, StageFiles, sha256_of
from trainers.errors import UserError
from trainers.method import Method, StagePlan
from trainers.stage import StageInputs, StageOutcome, StageRequest


class CannotGoOn(UserError):
    """The engine is at fault and not the trial, which stays unfinished and may go on later: nothing
    can train, or the sweep is being stopped.
    """


def stage_key(
    *,
    method: Method,
    plan: StagePlan,
    fingerprint: str,
    inputs: StageInputs,
    seed: int,
    draw: int,
    parent: str | None,
    world_size: int,
    device_kind: str,
    metric: str = "top-1",
    salt: str = "",
) -> str:
    """Hex SHA-256 of everything that the result of a stage can depend on, and of nothing else.

    Args:
        plan: of the stage, by the method.
        fingerprint: of the data (orchestrator.data.prepare).
        draw: rounds with questions before the stage; never the stage's own number, so that an empty
            round before it changes nothing.
        parent: key of the stage before; enters only where the plan reads its files, so that a
            schedule's past is otherwise in the labels alone.
        metric: what the best epoch is chosen by.
        salt: sharing switched off puts the trial's id here; empty otherwise.
    """
    parts = {
        "method": type(method).name,
        "version": type(method).version,
        "settings": written_method(type(method), plan.settings),
        "data": fingerprint,
        "inputs": inputs.digest(),
        "seed": seed,
        "draw": draw,
        "parent": parent if plan.reads else None,
        "world_size": world_size,
        "device": device_kind,
        "salt": salt,
    }
    parts |= written_plan(plan) | ({} if metric == "top-1" else {"metric": metric})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StageArtefact:
    """A committed stage."""

    folder: Path
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        found: dict[str, Any] = self.record["metrics"]
        # Stages of 0.2.0 had one metric, in the names of its numbers.
        since = {"validation_last": "val_top1_last", "validation_best": "val_top1_best"}
        return {name: found[old] for name, old in since.items() if old in found} | found

    def trained_for(self, trial: str, stage: int) -> bool:
        """Returns whether this stage of this trial had it trained; every other one that uses it
        shares it.
        """
        return self.record.get("trained_for") == {"trial": trial, "stage": stage}

    def files(self) -> StageFiles:
        """Returns its files as those read them who come after."""
        return StageFiles(
            {
                role: StageFile(self.folder / str(entry["name"]), str(entry["sha256"]))
                for role, entry in self.record["files"].items()
            }
        )

    def scores(self) -> Mapping[str, npt.NDArray[Any]]:
        """Returns the score arrays of this stage by name (trainers.stage.SCORE_ARRAYS).

        To ask for one raises StageDamaged where its file is missing or is not what was committed.
        """
        return self.files().scores()


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
        found = _read_record(path, key)
        if found is None:
            return None
        if not isinstance(found.get("metrics"), dict):
            raise _damaged(path, "it is the record of another stage")
        for more in sorted(path.parent.glob("added-*.json")):
            added = _read_record(more, key)
            found["files"] = (added or {"files": {}})["files"] | found["files"]
        return StageArtefact(path.parent, found)

    def left(self, request: StageRequest) -> StageRequest | None:
        """Returns what is left to do of a request: all of it, the score arrays that its stage was
        trained without, or nothing.

        Raises:
            StageDamaged: as `find`.
        """
        found = self.find(request.key)
        if found is None:
            return request
        files = found.files()
        lacking = tuple(n for n in request.wants if f"{SCORES}/{n}" not in files.files)
        return replace(request, wants=lacking, committed=files) if lacking else None

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
        if request.committed is None:
            record = {
                "key": key,
                "files": files,
                "metrics": outcome.metrics,
                "trained_for": {"trial": request.trial, "stage": request.stage},
            }
            commit_file(folder / "record.json", encode_object(record), replace=False)
        for role, file in files.items() if request.committed is not None else ():
            added = encode_object({"key": key, "files": {role: file}})
            commit_file(folder / f"added-{role.rpartition('/')[2]}.json", added, replace=False)
        return self.committed(request)

    def committed(self, request: StageRequest) -> StageArtefact:
        """Returns the artefact of a request that has nothing left.

        Raises:
            StageDamaged: there is none, or it is not what was committed.
        """
        found = self.find(request.key)
        if found is None:
            raise StageDamaged(
                f"{self.folder(request.key) / 'record.json'}: was written and is gone; is the"
                " folder being cleaned while the sweep runs?"
            )
        return found


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


def _read_record(path: Path, key: str) -> dict[str, Any] | None:
    """Returns the record of a stage's files; None where there is none.

    Raises:
        StageDamaged: it is not what was committed.
    """
    try:
        found = parse_object(path.read_bytes())
        # Stages of 0.1.0 have no checksum, and are read by `ledger verify` alone.
        if CHECKSUM in found and found[CHECKSUM] != checksum(found):
            raise ValueError("its content does not match its checksum")
        if found["key"] != key or not all(map(_is_file_entry, found["files"].values())):
            raise ValueError("it is the record of another stage")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StageDamaged(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    return found


def _damaged(path: Path, problem: object) -> StageDamaged:
    return StageDamaged(
        f"{path}: damaged ({problem}). Remove the folder {path.parent} to train this stage again."
    )


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
        if self.store.left(request) is not None:
            with hold(request.work_dir / "lock", wait=True):
                left = self.store.left(request)
                if left is not None:
                    return self.store.commit(left, self.launcher.train(left))
        return self.store.committed(request)
