"""Trained stages, shared by every trial that needs the same one: each is trained once, committed
once and never changed.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy.typing as npt

from orchestrator.storage.files import commit_file
from orchestrator.storage.store import Store, Unreadable, check_name
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import CHECKSUM, checksum, encode_object, parse_object
from search_spaces.reading.schema import changed_of_method, written_plan
from trainers.artefacts import SCORES, StageDamaged, StageFile, StageFiles, sha256_of
from trainers.errors import UserError
from trainers.method import Method, StagePlan
from trainers.stage import StageInputs, StageOutcome, StageRequest

CHECKPOINT: Final = re.compile(r"epoch-(\d+)-.*\.ckpt")
"""As trainers.checkpoint names them, which cannot be imported where torch must not be loaded."""
CHECKPOINTS_KEPT: Final = 2

_ADDED: Final = re.compile(r"added-[^/]*\.json")
"""Records of score arrays that a stage was first trained without."""


def epochs_done(work_dir: Path) -> int:
    """Returns the epoch of the newest checkpoint of the stage that is trained in this folder; 0
    without one.
    """
    found = (CHECKPOINT.fullmatch(path.name) for path in work_dir.glob("epoch-*.ckpt"))
    return max((int(match[1]) for match in found if match), default=0)


class SweepStopped(UserError):
    """No stage can be trained: the engine failed, or the sweep is being stopped. The trial stays
    unfinished; resume continues it.
    """


class LimitReached(SweepStopped):
    """The sweep's own limit keeps further stages from being started. str() names it."""

    exit_status = 4


class ClusterLost(SweepStopped):
    """What trains the stages is gone, through no fault of the sweep: the same command again, on
    another cluster, goes on.
    """

    exit_status = 5


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
        "settings": changed_of_method(type(method), plan.settings),
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

    store: Store
    folder: str
    """Below which its files are kept."""
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

    def name(self, role: str) -> str:
        """Returns under which name the file of that role is kept."""
        return f"{self.folder}/{self.record['files'][role]['name']}"

    def is_whole(self, role: str) -> bool:
        """Returns whether the file of that role is there and is the one that was committed."""
        try:
            found = sha256_of(self.store.local(self.name(role)))
        except (OSError, Unreadable):
            return False
        return bool(found == self.record["files"][role]["sha256"])

    def files(self) -> StageFiles:
        """Returns its files as those read them who come after, on whatever machine."""
        return StageFiles(_Kept(self.store, self.folder, self.record["files"]))

    def scores(self) -> Mapping[str, npt.NDArray[Any]]:
        """Returns the score arrays of this stage by name (trainers.stage.SCORE_ARRAYS).

        To ask for one raises StageDamaged where its file is missing or is not what was committed.
        """
        return self.files().scores()


@dataclass(frozen=True, slots=True)
class _Kept(Mapping[str, StageFile]):
    """The files of a stage, each fetched from the store when it is asked for, by the process that
    asks.
    """

    store: Store
    folder: str
    entries: Mapping[str, Any]

    def __getitem__(self, role: str) -> StageFile:
        entry, folder = self.entries[role], self.store.as_folder(self.folder)
        if folder is not None:
            return StageFile(folder / str(entry["name"]), str(entry["sha256"]))
        name = f"{self.folder}/{entry['name']}"
        try:
            return StageFile(self.store.local(name), str(entry["sha256"]))
        except (FileNotFoundError, Unreadable):
            raise StageDamaged(
                f"{self.store.place(name)}: missing. Remove the folder"
                f" {self.store.place(self.folder)} to train this stage again."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, role: object) -> bool:
        return role in self.entries


@dataclass(frozen=True, slots=True)
class StageStore:
    """The trained stages of a sweep: all that is kept of one is below its key, where `record.json`
    is what commits it.
    """

    store: Store

    def folder(self, key: str) -> str:
        """Raises ValueError where the key, which may come from a file, is no plain name."""
        return SweepLayout(self.store).stage_folder(key)

    def work(self, key: str) -> Path:
        """Returns the folder of this machine in which the stage is trained."""
        return self.store.work(self.folder(key))

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Waits until no other process of those that ask for it trains the stage."""
        return self.store.hold(f"{self.folder(key)}/lock", wait=True)

    def place(self, key: str) -> str:
        """Returns where the stage is kept, for messages."""
        return self.store.place(self.folder(key))

    def find(self, key: str) -> StageArtefact | None:
        """Returns the committed artefact of this key; None if there is none.

        Raises:
            StageDamaged: its record is not what was committed.
        """
        folder = self.folder(key)
        record = self._read_record(f"{folder}/record.json", key)
        if record is None:
            return None
        if not isinstance(record.get("metrics"), dict):
            raise self._damaged(f"{folder}/record.json", key, "it is the record of another stage")
        for name in self.store.names(folder):
            if _ADDED.fullmatch(name, len(folder) + 1):
                added = self._read_record(name, key)
                record["files"] = (added or {"files": {}})["files"] | record["files"]
        return StageArtefact(self.store, folder, record)

    def _read_record(self, name: str, key: str) -> dict[str, Any] | None:
        """Returns the record of a stage's files; None where there is none.

        Raises:
            StageDamaged: it is not what was committed.
        """
        try:
            found = parse_object(self.store.get(name))
            # Stages of 0.1.0 have no checksum, and are read by `ledger verify` alone.
            if CHECKSUM in found and found[CHECKSUM] != checksum(found):
                raise ValueError("its content does not match its checksum")
            if found["key"] != key or not all(map(_is_file_entry, found["files"].values())):
                raise ValueError("it is the record of another stage")
        except FileNotFoundError:
            return None
        except Unreadable as error:
            raise StageDamaged(str(error)) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(name, key, str(error)) from error
        return found

    def _damaged(self, name: str, key: str, problem: str) -> StageDamaged:
        return StageDamaged(
            f"{self.store.place(name)}: damaged ({problem}). Remove the folder {self.place(key)} to"
            " train this stage again."
        )

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

    def has_scratch(self, key: str) -> bool:
        """Returns whether a stage is trained in a folder of its machine alone, which other machines
        do not see.
        """
        return self.store.as_folder(self.folder(key)) is None

    def checkpoints(self, key: str) -> list[tuple[int, str]]:
        """Returns epoch and name of each checkpoint of a stage that its machine has put into the
        store, the newest last. Of a store that is a folder, none: they are made where they are
        kept.
        """
        if not self.has_scratch(key):
            return []
        below = self._checkpoints(key)
        return sorted(
            (int(match[1]), name)
            for name in self.store.names(below)
            if (match := CHECKPOINT.fullmatch(name, len(below) + 1))
        )

    def epochs_done(self, key: str) -> int:
        """Returns the epoch of a stage's newest checkpoint, here or in the store; 0 without one."""
        here = epochs_done(self.work(key))
        return max([here, *(epochs for epochs, _ in self.checkpoints(key))])

    def put_checkpoint(self, key: str, path: Path) -> None:
        """Puts a checkpoint of a stage in training into the store, and removes older ones but one:
        the newest may turn out damaged.
        """
        # Not as a fact: of those a store may keep a copy on this machine, which nobody needs.
        self.store.put(f"{self._checkpoints(key)}/{path.name}", path.read_bytes(), replace=True)
        for _, name in self.checkpoints(key)[:-CHECKPOINTS_KEPT]:
            self.store.remove(name)

    def fetch_checkpoints(self, key: str) -> None:
        """Gets the checkpoints of a stage that are newer than this machine's into the folder in
        which it is trained here.
        """
        work = self.work(key)
        here = epochs_done(work)
        for epochs, name in self.checkpoints(key):
            target = work / name.rpartition("/")[2]
            if epochs > here:
                with suppress(FileNotFoundError):
                    # Gone meanwhile: the stage was finished, or a newer one took its place.
                    commit_file(target, self.store.get(name), replace=True)

    def _checkpoints(self, key: str) -> str:
        return f"{self.folder(key)}/checkpoints"

    def keep(self, request: StageRequest, outcome: StageOutcome) -> None:
        """Puts the files that a training has made on this machine; `commit` says that they count.
        Files that another machine has put stay as they are.
        """
        folder, work = self.folder(request.key), self.store.as_folder(self.folder(request.key))
        if request.work_dir == work:
            # They lie where they are kept.
            return
        there = set(self.store.names(folder))
        for name in outcome.files.values():
            if f"{folder}/{name}" not in there:
                self.store.put_file(f"{folder}/{name}", request.work_dir / name)
        self.store.end_work(folder)

    def commit(self, request: StageRequest, outcome: StageOutcome) -> StageArtefact:
        """Returns the committed artefact of the request's key: `outcome` if it came first, else the
        one that did.
        """
        self.keep(request, outcome)
        key, folder = request.key, self.folder(request.key)
        files: dict[str, dict[str, Any]] = {}
        for role, name in sorted(outcome.files.items()):
            path = self.store.local(f"{folder}/{name}")
            files[role] = {
                "name": name,
                "sha256": sha256_of(path),
                "bytes": path.stat().st_size,
            }
        if request.committed is None:
            record = {
                "key": key,
                "files": files,
                "metrics": outcome.metrics,
                "trained_for": {"trial": request.trial, "stage": request.stage},
            }
            self.store.put(f"{folder}/record.json", encode_object(record))
            if self.has_scratch(key):
                self.store.remove(self._checkpoints(key))
        for role, file in files.items() if request.committed is not None else ():
            added = encode_object({"key": key, "files": {role: file}})
            self.store.put(f"{folder}/added-{role.rpartition('/')[2]}.json", added)
        return self.committed(request)

    def committed(self, request: StageRequest) -> StageArtefact:
        """Returns the artefact of a request that has nothing left.

        Raises:
            StageDamaged: there is none, or it is not what was committed.
        """
        found = self.find(request.key)
        if found is None:
            raise StageDamaged(
                f"{self.place(request.key)}/record.json: was written and is gone; is the folder"
                " being cleaned while the sweep runs?"
            )
        return found


class StageTrainer(Protocol):
    """Trains one stage somewhere: in this process, in processes of its own, on a cluster."""

    @property
    def world_size(self) -> int: ...

    @property
    def device_kind(self) -> str: ...

    def train(self, request: StageRequest) -> StageOutcome: ...


class StageProvider(Protocol):
    """What a trial asks for its stages: the artefact of a request, trained now or found."""

    @property
    def world_size(self) -> int: ...

    @property
    def device_kind(self) -> str: ...

    def obtain(self, request: StageRequest) -> StageArtefact: ...


def _is_file_entry(entry: Any) -> bool:
    """Whether an entry of `files` names a file of the stage's own folder."""
    name = entry["name"]
    return "/" not in check_name(name) and isinstance(entry["sha256"], str)


def new_attempt() -> str:
    return uuid.uuid4().hex[:8]


@dataclass(frozen=True, slots=True)
class LockedStages:
    """Stages of one machine: one process trains a stage while the others that want it wait; a
    holder's death lets the next one go on from its checkpoint.
    """

    store: StageStore
    launcher: StageTrainer

    @property
    def world_size(self) -> int:
        return self.launcher.world_size

    @property
    def device_kind(self) -> str:
        return self.launcher.device_kind

    def obtain(self, request: StageRequest) -> StageArtefact:
        if self.store.left(request) is not None:
            with self.store.lock(request.key):
                left = self.store.left(request)
                if left is not None:
                    left.work_dir.mkdir(parents=True, exist_ok=True)
                    return self.store.commit(left, self.launcher.train(left))
        return self.store.committed(request)
