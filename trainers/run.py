"""Train one stage: resume, train, validate, predict, and leave artefacts in the work folder."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainers import checkpoint, predict, randomness
from trainers.data.items import Items, StageData, holds_images, open_data
from trainers.distributed.ranks import ALONE, Ranks
from trainers.errors import DataError
from trainers.mean_teacher.method import MeanTeacher
from trainers.stage import SCORE_ARRAYS, StageInputs, StageOutcome, StageRequest, TrainingFailed

LARGEST_LOSS = 1e5
"""A loss above this will not come back (Tarvainen & Valpola 2017, published code)."""


def run_stage(
    request: StageRequest,
    ranks: Ranks = ALONE,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> StageOutcome:
    """The stage is trained and its artefacts are in work_dir: a function of the request and the
    data alone, however often it was interrupted.

    Goes on from the newest undamaged epoch checkpoint in work_dir, whichever attempt left it. Only
    the first rank writes. Sets torch's number of threads and its deterministic algorithms for the
    whole process.

    Args:
        on_epoch: called on the first rank after every epoch with that epoch's entry of `history`
            and `epochs`.

    Raises:
        DataError: the data cache, the parent model or the ids do not fit together.
        TrainingFailed: the loss is not finite or too large, or memory ran out.
    """
    device = torch.device(request.device)
    set_up(device, request.threads)
    try:
        return _Stage(request, ranks, device).run(on_epoch or (lambda entry: None))
    except (MemoryError, RuntimeError) as error:
        if isinstance(
            error, MemoryError | torch.OutOfMemoryError
        ) or "can't allocate memory" in str(error):
            detail = str(error).split("\n")[0]
            raise TrainingFailed(
                f"stage {request.stage}: memory ran out on {device} ({detail}); try a smaller"
                " method.batch_size or backbone"
            ) from error
        raise


def precision_used(precision: str, device: str, kind: str) -> Literal["bf16", "fp32", "fp64"]:
    """The precision a stage trains in on data of this kind: on a CPU bf16 becomes fp32 where it
    would be slower.

    That is where the CPU has no bf16 arithmetic and imitates it, and for feature vectors, whose
    small matrices take less time than their conversion (measured with 512 features: 5.1 against 4.0
    ms a step).
    """
    if precision == "bf16" and torch.device(device).type == "cpu":
        has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return (
            "bf16"
            if holds_images(kind)
            and any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "arm_bf16", "bf16"))
            else "fp32"
        )
    if precision not in ("bf16", "fp32", "fp64"):
        raise ValueError(f"unknown precision {precision!r}")
    return precision  # type: ignore[return-value]


class _Stage:
    """One stage in training on one rank."""

    def __init__(self, request: StageRequest, ranks: Ranks, device: torch.device) -> None:
        self.request, self.ranks, self.device = request, ranks, device
        self.data = open_data(request.data_dir)
        check_inputs(request.inputs, self.data)
        if request.method.batch_size < 2 * ranks.world_size:
            raise DataError(
                f"method.batch_size: {request.method.batch_size} images cannot be shared by"
                f" {ranks.world_size} workers; at least two each are needed"
            )
        self.precision = precision_used(request.method.precision, request.device, self.data.kind)
        seed = randomness.key(request.seed, request.draw)
        self.trainer = MeanTeacher(
            request.method,
            self.data,
            request.inputs,
            seed=seed,
            device=device,
            precision=self.precision,
            ranks=ranks,
        )
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": None, "top1": None, "teacher": None}
        self.seconds = 0.0

    def run(self, on_epoch: Callable[[dict[str, Any]], None]) -> StageOutcome:
        """Train what is left of the epochs, predict, and write the artefacts."""
        request, epochs = self.request, self.request.method.epochs
        began = time.monotonic()
        done = self._resume()
        resumed_from = done or None
        if done == 0:
            self._take_over_parent()
        before, written = self.seconds, time.monotonic()
        for epoch in range(done, epochs):
            entry = self._epoch(epoch)
            self.seconds = before + time.monotonic() - began
            if self.ranks.first:
                if time.monotonic() - written >= request.checkpoint_seconds and epoch + 1 < epochs:
                    checkpoint.save_epoch(
                        request.work_dir, request.attempt, epoch + 1, self._state(epoch + 1)
                    )
                    written = time.monotonic()
                on_epoch({**entry, "epochs": epochs})
        arrays = self._predict()
        self.seconds = before + time.monotonic() - began
        files = {"scores": f"scores-{request.attempt}.npz", "model": f"model-{request.attempt}.pt"}
        if self.ranks.first:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            checkpoint.commit(request.work_dir / files["scores"], buffer.getvalue())
            checkpoint.commit(request.work_dir / files["model"], checkpoint.to_bytes(self._model()))
            checkpoint.remove_epochs(request.work_dir)
        self.ranks.wait()
        return StageOutcome(files=files, metrics=self._metrics(resumed_from))

    def _epoch(self, epoch: int) -> dict[str, Any]:
        # The only wait for the device in an epoch: the losses of its steps are read here.
        steps = self.trainer.train_epoch(epoch).cpu().numpy()
        bad = ~(np.isfinite(steps[:, 0]) & (steps[:, 0] <= LARGEST_LOSS))
        if bad.any():
            step = int(bad.argmax())
            raise TrainingFailed(
                f"stage {self.request.stage}: the loss is {steps[step, 0]:.3g} at step {step + 1}"
                f" of epoch {epoch + 1}; try a lower method.learning_rate, a lower"
                " method.consistency_weight, or method.precision fp32"
            )
        inputs = self.request.inputs
        self.trainer.teacher.eval()
        top1 = predict.top1(
            self.trainer.teacher,
            self.trainer.items,
            inputs.validation_ids,
            inputs.validation_labels,
            self.ranks,
        )
        if top1 is not None and (self.best["top1"] is None or top1 > self.best["top1"]):
            self.best = {
                "epoch": epoch,
                "top1": top1,
                "teacher": copy.deepcopy(self.trainer.teacher.state_dict()),
            }
        loss, by_class, by_consistency = (float(v) for v in steps.mean(0))
        entry = {
            "epoch": epoch,
            "loss": loss,
            "loss_class": by_class,
            "loss_consistency": by_consistency,
            "val_top1": top1,
        }
        self.history.append(entry)
        return entry

    def _predict(self) -> dict[str, Any]:
        trainer, inputs = self.trainer, self.request.inputs
        trainer.teacher.eval()
        test = Items(
            self.data, "test", device=self.device, dtype=trainer.items.dtype, feature_noise=0.0
        )
        arrays: dict[str, Any] = predict.pool_scores(
            trainer.teacher, trainer.items, inputs.pool_ids, trainer.negatives, self.ranks
        )
        arrays["val_guess_last"] = predict.guesses(
            trainer.teacher, trainer.items, self.ranks, inputs.validation_ids
        )
        arrays["test_guess_last"] = predict.guesses(trainer.teacher, test, self.ranks)
        arrays["test_guess_best_val"] = arrays["test_guess_last"]
        if (
            self.best["teacher"] is not None
            and self.best["epoch"] != self.request.method.epochs - 1
        ):
            best = copy.deepcopy(trainer.teacher)
            best.load_state_dict(self.best["teacher"])
            arrays["test_guess_best_val"] = predict.guesses(best.eval(), test, self.ranks)
        return {name: arrays[name] for name in SCORE_ARRAYS}

    def _model(self) -> dict[str, Any]:
        """What a later stage or prediction needs: weights of both nets, and which network they are
        of.
        """
        trainer = self.trainer
        return {
            "method": self.request.method.name,
            "backbone": trainer.backbone,
            "num_classes": self.data.num_classes,
            "shape": list(self.data.shape),
            "student": trainer.student.state_dict(),
            "teacher": trainer.teacher.state_dict(),
        }

    def _state(self, epochs: int) -> dict[str, Any]:
        return {
            "key": self.request.key,
            "epochs": epochs,
            "trainer": self.trainer.state(),
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds,
        }

    def _resume(self) -> int:
        """Epochs already trained, whose end is now the trainer's state."""
        found = (
            checkpoint.newest_epoch(self.request.work_dir, self.request.key)
            if self.ranks.first
            else None
        )
        content = self.ranks.share_bytes(found, self.device)
        if content is None:
            return 0
        state = checkpoint.from_bytes(content, self.device)
        self.trainer.load_state(state["trainer"])
        self.best, self.history, self.seconds = (
            state["best"],
            state["history"],
            float(state["seconds"]),
        )
        return int(state["epochs"])

    def _take_over_parent(self) -> None:
        path = self.request.parent_model
        if self.request.method.init != "continue" or path is None:
            return
        try:
            model = checkpoint.from_bytes(path.read_bytes(), self.device)
            student, teacher = (_weights(model, name) for name in ("student", "teacher"))
            self.trainer.start_from(student, teacher)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise DataError(
                f"{path}: expected the model of the stage before, with backbone"
                f" {self.trainer.backbone!r}, to continue from; {reason}"
            ) from None

    def _metrics(self, resumed_from: int | None) -> dict[str, Any]:
        steps = self.trainer.step
        images = steps * self.request.method.batch_size
        return {
            "val_top1_last": self.history[-1]["val_top1"] if self.history else None,
            "val_top1_best": self.best["top1"],
            "best_val_epoch": self.best["epoch"],
            "epochs": len(self.history),
            "steps": steps,
            "images": images,
            "seconds": self.seconds,
            "images_per_second": images / max(self.seconds, 1e-9),
            "device": str(self.device),
            "precision": self.precision,
            "backbone": self.trainer.backbone,
            "parameters": sum(p.numel() for p in self.trainer.student_weights),
            "loss_last": self.history[-1]["loss"] if self.history else None,
            "resumed_from_epoch": resumed_from,
            "history": self.history,
        }


def set_up(device: torch.device, threads: int) -> None:
    """Torch's number of threads and its algorithms, for the whole process, as every stage has
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


def _weights(model: dict[str, Any], name: str) -> dict[str, Tensor]:
    weights = model.get(name)
    if not isinstance(weights, dict):
        raise ValueError(f"it has no {name!r} weights")
    return weights


def check_inputs(inputs: StageInputs, data: StageData) -> None:
    """The ids and classes are of this data set and in the order that StageInputs promises.

    Raises:
        DataError: they are not; the message names the array.
    """
    items, classes = len(data.train), data.num_classes
    for name in ("pool_ids", "label_ids", "validation_ids"):
        ids = getattr(inputs, name)
        if len(ids) and (ids[0] < 0 or ids[-1] >= items or (np.diff(ids) <= 0).any()):
            raise DataError(
                f"{data.folder}: {name} must be ascending ids of its {items} training images, each"
                " once"
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
        if len(values) and (values.min() < 0 or values.max() >= classes):
            raise DataError(f"{data.folder}: {classes_name} holds a class outside 0..{classes - 1}")
    pool = inputs.pool_ids
    if not (np.isin(inputs.label_ids, pool).all() and np.isin(inputs.negative_ids, pool).all()):
        raise DataError(f"{data.folder}: a labelled or refused image is not in the pool")
    if len(pool) == 0:
        raise DataError(f"{data.folder}: the pool has no images")
