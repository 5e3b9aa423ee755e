"""Train one stage: resume, train, validate, predict, and leave artefacts in the work folder."""

from __future__ import annotations

import copy
import importlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from trainers import checkpoint, randomness
from trainers.artefacts import SCORES, StageFiles
from trainers.data.items import StageData, open_data
from trainers.distributed.ranks import ALONE, Ranks
from trainers.errors import DataError, UserError
from trainers.method import Method, as_planned, keeps_state, left_scores
from trainers.metrics import Values
from trainers.stage import (
    POOL_ARRAYS,
    Diverged,
    Interrupted,
    StageInputs,
    StageOutcome,
    StageRequest,
    TrainingFailed,
)
from trainers.trainer import Figures, Split, Trainer

FORMAT = 2
"""Of an epoch checkpoint. One of another format is not taken up."""

LARGEST_LOSS = 1e5
"""A loss above this will not come back (Tarvainen & Valpola 2017, published code)."""


def run_stage(
    request: StageRequest,
    ranks: Ranks = ALONE,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    is_asked_to_end: Callable[[], bool] | None = None,
) -> StageOutcome:
    """Trains the stage and writes its artefacts to work_dir: a function of the request and the data
    alone, however often it was interrupted.

    Goes on from the newest undamaged epoch checkpoint in work_dir, whichever attempt left it. Only
    the first rank writes. Sets torch's number of threads and its deterministic algorithms for the
    whole process.

    Args:
        on_epoch: called on the first rank after every epoch with that epoch's entry of `history`
            and `epochs`.
        is_asked_to_end: looked at on every rank after every epoch. Once it is so on one of them,
            the first writes a checkpoint and all raise Interrupted. Given to all ranks or to none.

    Raises:
        DataError: the data cache, the files of the stage before or the ids do not fit together.
        TrainingFailed: the loss is not finite or too large, or memory ran out.
        Interrupted: as `is_asked_to_end` says.
    """
    device = torch.device(request.device)
    set_up(device, request.threads)
    trains = trainer_class(request.method)
    try:
        stage = _Stage(request, ranks, device)
        if request.committed is not None:
            return stage.score_again(request.committed)
        return stage.run(on_epoch or (lambda entry: None), is_asked_to_end)
    except (MemoryError, RuntimeError) as error:
        if isinstance(
            error, MemoryError | torch.OutOfMemoryError
        ) or "can't allocate memory" in str(error):
            detail = str(error).split("\n")[0]
            raise TrainingFailed(
                f"stage {request.stage}: memory ran out on {device} ({detail}); try"
                f" {trains.if_memory_is_short}"
            ) from error
        raise


def trainer_class(method: Method) -> type[Trainer]:
    """Returns the class that trains a method.

    Raises:
        UserError: it cannot be imported.
    """
    module, _, name = method.trainer.partition(":")
    try:
        found: type[Trainer] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"method {method.name}: its trainer {method.trainer} cannot be imported"
            f" ({type(error).__name__}: {error}). Install its package on every machine that trains,"
            " or mend it."
        ) from error
    return found


class _Stage:
    """One stage in training on one rank."""

    def __init__(self, request: StageRequest, ranks: Ranks, device: torch.device) -> None:
        self.request, self.ranks, self.device = request, ranks, device
        self.data = open_data(request.data_dir)
        check_inputs(request.inputs, self.data)
        self.metric = request.metric
        self.trainer = trainer_class(request.method)(
            request.plan,
            as_planned(request.method, request.plan),
            self.data,
            request.inputs,
            seed=randomness.key(request.seed, request.draw),
            device=device,
            ranks=ranks,
            parent=request.parent,
        )
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": None, "value": None, "model": None}
        self.seconds = 0.0
        self.begun_at = self.trainer.figures()

    def run(
        self,
        on_epoch: Callable[[dict[str, Any]], None],
        is_asked_to_end: Callable[[], bool] | None,
    ) -> StageOutcome:
        """Trains what is left of the epochs, predicts, and writes the artefacts."""
        request, (first, stop) = self.request, self.request.plan.epochs
        began = time.monotonic()
        resumed_from = self._resume()
        if resumed_from is None:
            self._go_on_from_parent()
        before, saved = self.seconds, time.monotonic()
        for epoch in range(first if resumed_from is None else resumed_from, stop):
            if self.trainer.is_over(self.history):
                break
            entry = self._epoch(epoch)
            self.seconds = before + time.monotonic() - began
            # After the last epoch the stage is as good as done.
            ends = (
                is_asked_to_end is not None
                and epoch + 1 < stop
                and self.ranks.any(is_asked_to_end(), self.device)
            )
            if self.ranks.first:
                due = time.monotonic() - saved >= request.checkpoint_seconds
                if (due or ends) and epoch + 1 < stop:
                    checkpoint.save_epoch(
                        request.work_dir, request.attempt, epoch + 1, self._state(epoch + 1)
                    )
                    saved = time.monotonic()
                on_epoch({**entry, "epochs": stop})
            if ends:
                # No rank leaves before the checkpoint is whole.
                self.ranks.wait()
                raise Interrupted(f"stage {request.stage}: saved after epoch {epoch + 1}")
        arrays, figures = self._predict(), self.trainer.figures()
        contents = self._kept() if self.ranks.first else {}
        arrays |= self._predict_at_best(arrays)
        self.seconds = before + time.monotonic() - began
        files = self._written(arrays, contents)
        if self.ranks.first:
            checkpoint.remove_epochs(request.work_dir)
        self.ranks.wait()
        return StageOutcome(files=files, metrics=self._metrics(resumed_from, figures))

    def score_again(self, committed: StageFiles) -> StageOutcome:
        """Writes the score arrays that are wanted, as the stage's own model says them."""
        try:
            model = checkpoint.from_bytes(committed.read("model"), self.device)
            self.trainer.predict_with(model)
        except (ValueError, KeyError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            path = committed.path("model")
            raise DataError(
                f"{path}: {', '.join(self.request.wants)} cannot be made of it; {reason}. Remove"
                f" the folder {path.parent} to train this stage again."
            ) from None
        files = self._written(self._scores("pool", self.request.wants), {})
        self.ranks.wait()
        return StageOutcome(files=files, metrics={})

    def _written(
        self, arrays: Mapping[str, Values], contents: Mapping[str, bytes]
    ) -> dict[str, str]:
        """Role -> name of the files, which the first rank has written."""
        attempt, folder = self.request.attempt, self.request.work_dir
        files = {f"{SCORES}/{name}": f"{SCORES}-{attempt}.{name}.npy" for name in arrays}
        files |= {role: f"{role}-{attempt}.pt" for role in contents}
        if self.ranks.first:
            everything = {f"{SCORES}/{name}": _npy(array) for name, array in arrays.items()}
            everything |= contents
            checkpoint.write_all(folder, {files[role]: data for role, data in everything.items()})
        return files

    def _epoch(self, epoch: int) -> dict[str, Any]:
        terms = self.trainer.epoch(epoch)
        # The only wait for the device in an epoch: the losses of its steps are read here.
        steps = torch.stack([term.double() for term in terms.values()], 1).cpu().numpy()
        bad = ~(np.isfinite(steps[:, 0]) & (steps[:, 0] <= LARGEST_LOSS))
        if bad.any():
            step = int(bad.argmax())
            raise Diverged(
                f"stage {self.request.stage}: the loss is {steps[step, 0]:.3g} at step {step + 1}"
                f" of epoch {epoch + 1}; try {self.trainer.if_it_diverges}"
            )
        value = self._validate()
        if value is not None and (self.best["value"] is None or value > self.best["value"]):
            self.best = {
                "epoch": epoch,
                "value": value,
                "model": copy.deepcopy(self.trainer.predictor()),
            }
        means = dict(zip(terms, (float(mean) for mean in steps.mean(0)), strict=True))
        entry = {"epoch": epoch, **means, "validation": value}
        self.history.append(entry)
        return entry

    def _validate(self) -> float | None:
        """What the model reaches on the validation images; None where there are none."""
        inputs = self.request.inputs
        if len(inputs.validation_ids) == 0:
            return None
        found = self._scores("validation", (self.metric.array,))[self.metric.array]
        value = self.metric.score(inputs.validation_labels, found)
        return value if np.isfinite(value) else None

    def _scores(self, split: Split, names: Sequence[str]) -> dict[str, Values]:
        inputs = self.request.inputs
        match split:
            case "pool":
                ids = inputs.pool_ids
            case "validation":
                ids = inputs.validation_ids
            case "test":
                ids = np.arange(len(self.data.test))
        found = self.trainer.scores(split, ids, names)
        return {name: found[name] for name in names}

    def _predict(self) -> dict[str, Any]:
        """What is kept of the model after the last epoch."""
        judged = self.metric.array
        offers = self.request.method.offers
        mine = (name for name in POOL_ARRAYS if name in offers)
        extra = dict.fromkeys((*left_scores(self.request.method), *self.request.wants))
        offered = [*mine, *extra]
        return {
            "item_ids": self.request.inputs.pool_ids,
            **self._scores("pool", offered),
            f"val_{judged}_last": self._scores("validation", (judged,))[judged],
            f"test_{judged}_last": self._scores("test", (judged,))[judged],
        }

    def _predict_at_best(self, last: dict[str, Any]) -> dict[str, Any]:
        """What is kept of the model at the best validation epoch, which the trainer then is."""
        judged = self.metric.array
        found = last[f"test_{judged}_last"]
        if self.best["model"] is not None and self.best["epoch"] != self.history[-1]["epoch"]:
            self.trainer.predict_with(self.best["model"])
            found = self._scores("test", (judged,))[judged]
        return {f"test_{judged}_best_val": found}

    def _kept(self) -> dict[str, bytes]:
        """Role -> content of the files that a later stage or prediction may need."""
        found = {"model": checkpoint.to_bytes(self.trainer.model())}
        if keeps_state(self.request.method):
            state = {"epochs": self.request.plan.epochs[1], "trainer": self.trainer.state()}
            found["state"] = checkpoint.to_bytes(state)
        return found

    @property
    def _stamp(self) -> list[Any]:
        return [FORMAT, self.request.key]

    def _state(self, epochs: int) -> dict[str, Any]:
        return {
            "key": self._stamp,
            "epochs": epochs,
            "trainer": self.trainer.state(),
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds,
            "begun_at": asdict(self.begun_at),
        }

    def _resume(self) -> int | None:
        """The epoch to go on with, whose start is now the trainer's state; None where there is no
        checkpoint.
        """
        newest = (
            checkpoint.newest_epoch(self.request.work_dir, self._stamp)
            if self.ranks.first
            else None
        )
        content = self.ranks.share_bytes(newest, self.device)
        if content is None:
            return None
        state = checkpoint.from_bytes(content, self.device)
        self.trainer.load(state["trainer"])
        self.best, self.history, self.seconds = (
            state["best"],
            state["history"],
            float(state["seconds"]),
        )
        self.begun_at = Figures(**state["begun_at"])
        return int(state["epochs"])

    def _go_on_from_parent(self) -> None:
        """The trainer has the state of the stage before, where the plan reads it."""
        parent, first = self.request.parent, self.request.plan.epochs[0]
        if "state" not in self.request.plan.reads or parent is None:
            return
        try:
            state = checkpoint.from_bytes(parent.read("state"), self.device)
            if state["epochs"] != first:
                raise ValueError(f"it is that of epoch {state['epochs']}")
            self.trainer.load(state["trainer"])
            self.begun_at = self.trainer.figures()
        except (ValueError, KeyError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise DataError(
                f"{parent.path('state')}: expected the state of the stage before at epoch {first},"
                f" to go on from; {reason}"
            ) from None

    def _metrics(self, resumed_from: int | None, figures: Figures) -> dict[str, Any]:
        images = figures.images - self.begun_at.images
        last = self.history[-1] if self.history else {}
        named = {"named": dict(figures.named)} if figures.named else {}
        return named | {
            "metric": self.metric.name,
            "validation_last": last.get("validation"),
            "validation_best": self.best["value"],
            "best_val_epoch": self.best["epoch"],
            "epochs": len(self.history),
            "seconds": self.seconds,
            "steps": figures.steps - self.begun_at.steps,
            "images": images,
            "images_per_second": images / max(self.seconds, 1e-9),
            "device": str(self.device),
            "loss_last": list(last.values())[1] if last else None,
            "resumed_from_epoch": resumed_from,
            "history": self.history,
            "backbone": figures.backbone,
            "precision": figures.precision,
            "parameters": figures.parameters,
        }


def _npy(array: Values) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def set_up(device: torch.device, threads: int) -> None:
    """Sets torch's number of threads and its algorithms for the whole process, as every stage has
    them.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        # On a GPU runs agree in distribution, not in bits: cuDNN may try its algorithms out and
        # take the fastest.
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
        return
    # The same switch as use_deterministic_algorithms(True), which would also load the compiler, 150
    # MB, to tell it.
    torch.set_deterministic_debug_mode("error")
    # Filling every new tensor is a help for finding reads of uninitialised memory, and costs a
    # sixth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def check_inputs(inputs: StageInputs, data: StageData) -> None:
    """Checks that the ids and classes are of this data set and in the order that StageInputs
    promises.

    Raises:
        DataError: they are not; the message names the array.
    """
    items, classes = len(data.train), data.num_classes
    for name in ("pool_ids", "label_ids", "validation_ids"):
        ids = getattr(inputs, name)
        steps = np.diff(ids)
        if name == "label_ids" and len(inputs.labels) == len(ids):
            # An image may have several classes, ascending.
            steps = np.where(steps == 0, np.diff(inputs.labels), steps)
        if len(ids) and (ids[0] < 0 or ids[-1] >= items or (steps <= 0).any()):
            once = "class once" if name == "label_ids" else "once"
            raise DataError(
                f"{data.folder}: {name} must be ascending ids of its {items} training images, each"
                f" {once}"
            )
    for ids_name, classes_name in (
        ("label_ids", "labels"),
        ("negative_ids", "negative_classes"),
        ("validation_ids", "validation_labels"),
    ):
        values = getattr(inputs, classes_name)
        if len(values) != len(getattr(inputs, ids_name)):
            raise DataError(
                f"{data.folder}: {classes_name} has {len(values)} entries for"
                f" {len(getattr(inputs, ids_name))} {ids_name}"
            )
        if values.ndim == 2:
            if values.shape[1] != classes or not np.isin(values, (0, 1)).all():
                raise DataError(
                    f"{data.folder}: {classes_name} of several classes an image must be 0 or 1 for"
                    f" each of {classes} classes; they are {list(values.shape)}"
                )
        elif len(values) and (values.min() < 0 or values.max() >= classes):
            raise DataError(f"{data.folder}: {classes_name} holds a class outside 0..{classes - 1}")
    pool = inputs.pool_ids
    if not (np.isin(inputs.label_ids, pool).all() and np.isin(inputs.negative_ids, pool).all()):
        raise DataError(f"{data.folder}: a labelled or refused image is not in the pool")
    if len(pool) == 0:
        raise DataError(f"{data.folder}: the pool has no images")
