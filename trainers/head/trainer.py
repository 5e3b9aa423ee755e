"""The training of a head: one epoch that ends at the minimum of its objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers import predict, randomness
from trainers.artefacts import StageFiles
from trainers.data.items import VALUES_AT_ONCE, Items, StageData, to_device
from trainers.distributed.ranks import Ranks
from trainers.head.minimise import minimise
from trainers.head.objective import Objective, SoftTargets
from trainers.head.settings import Head
from trainers.head.unlabelled import MOST, soft_targets
from trainers.method import StagePlan
from trainers.negatives import Negatives
from trainers.stage import Ids, StageInputs
from trainers.trainer import Figures, Split, Trainer

DEFAULT_L2 = 0.3
"""Times 1 / L; docs/head.md has what it was chosen by."""


class HeadTrainer(Trainer):
    """Weights and bias, in float64 all along. Every rank trains all of it. Nothing is drawn at
    random but which images without a label are learned from, where there are more than MOST.
    """

    if_it_diverges: ClassVar[str] = "a larger method.l2"
    if_memory_is_short: ClassVar[str] = "fewer features, or smaller images"

    def __init__(
        self,
        plan: StagePlan,
        settings: Head,
        data: StageData,
        inputs: StageInputs,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks,
        parent: StageFiles | None,
    ) -> None:
        self.settings, self.inputs, self.seed, self.device = settings, inputs, seed, device
        self.num_classes = data.num_classes
        self.rows = {"train": _Rows(data, "train", settings, device)}
        self.rows["test"] = _Rows(data, "test", settings, device)
        self.negatives = Negatives(inputs, len(data.train), data.num_classes)
        width = self.rows["train"].width
        self.weights = torch.zeros(width + 1, self.num_classes, dtype=torch.float64, device=device)
        self.steps = self.images = 0

    def epoch(self, number: int) -> Mapping[str, Tensor]:
        """Trains from zero to convergence; where images without a label are learned from, twice,
        the second time from the first head, with what it and the graph say of them.
        """
        objective = self.objective()
        self._minimise(objective)
        ids = self._unlabelled()
        if self.settings.unlabelled_weight and len(ids) and len(self.inputs.labels):
            objective = replace(objective, soft=self._soft_targets(objective, ids))
            self._minimise(objective, self.weights)
        labels, refusals = objective.terms(self.weights)
        losses = {"loss_labels": labels, "loss_refusals": refusals}
        if objective.soft is not None:
            losses["loss_unlabelled"] = objective.soft(self.weights)[0]
        penalty = objective.l2 / 2 * self.weights[:-1].square().sum()
        losses = {"loss": torch.stack([penalty, *losses.values()]).sum(), **losses}
        return {name: loss.reshape(1) for name, loss in losses.items()}

    def _minimise(self, objective: Objective, start: Tensor | None = None) -> None:
        self.weights, steps = minimise(objective, start, remedy=self.if_it_diverges)
        self.steps += steps
        soft = objective.soft
        self.images += steps * (len(objective.x) + (len(soft.x) if soft is not None else 0))

    def _unlabelled(self) -> Ids:
        """Returns the images without a label that are learned from, ascending: all, or MOST."""
        ids = np.setdiff1d(self.inputs.pool_ids, self.inputs.label_ids)
        if len(ids) <= MOST:
            return ids
        keys = torch.from_numpy(ids)
        order = randomness.draws(self.seed, keys, torch.zeros_like(keys), 1)[:, 0].argsort()
        return np.sort(ids[order[:MOST].numpy()])

    def _soft_targets(self, objective: Objective, ids: Ids) -> SoftTargets:
        settings = self.settings
        x = self._vectors(ids)
        refused = self.negatives.pairs(ids)
        return SoftTargets(
            x=x,
            targets=soft_targets(
                torch.cat([objective.x[: len(objective.labels)], x]),
                objective.labels,
                objective.label_weights,
                torch.addmm(self.weights[-1], x, self.weights[:-1]),
                *(to_device(pairs, self.device) for pairs in refused),
                neighbours=settings.neighbours,
                balanced=settings.balanced,
            ),
            weight=settings.unlabelled_weight,
        )

    def _vectors(self, ids: Ids) -> Tensor:
        return torch.cat([x for _, x in self.rows["train"].parts(ids, len(ids))])

    def objective(self) -> Objective:
        """Returns what is minimised: that of the labelled images and, where they are learned from,
        of the images with refused classes alone.
        """
        inputs = self.inputs
        refused = np.setdiff1d(inputs.negative_ids, inputs.label_ids)
        rows, classes = self.negatives.pairs(refused if self.settings.negatives else refused[:0])
        # Of some images every class was refused, which says nothing.
        at, rows = np.unique(rows, return_inverse=True)
        ids = np.concatenate([inputs.label_ids, refused[at]])
        l2 = self.settings.l2
        return Objective(
            x=self._vectors(ids),
            labels=to_device(inputs.labels.astype(np.int64), self.device),
            label_weights=to_device(self._label_weights(), self.device),
            refused_rows=to_device(rows, self.device),
            refused_classes=to_device(classes, self.device),
            num_classes=self.num_classes,
            l2=DEFAULT_L2 / (len(inputs.labels) or len(ids) or 1) if l2 is None else l2,
        )

    def _label_weights(self) -> npt.NDArray[np.float64]:
        """Returns what each label counts, 1 on average."""
        labels = self.inputs.labels
        if not self.settings.balanced:
            return np.ones(len(labels))
        held = np.bincount(labels, minlength=self.num_classes)
        return len(labels) / (int(np.count_nonzero(held)) or 1) / held[labels]

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights, "steps": self.steps, "images": self.images}

    def load(self, state: dict[str, Any]) -> None:
        self.weights = state["weights"]
        self.steps, self.images = int(state["steps"]), int(state["images"])

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        rows = self.rows["test" if split == "test" else "train"]
        at_once = VALUES_AT_ONCE[self.device.type] // max(self.weights.shape) + 1
        found = []
        for part, x in rows.parts(ids, at_once):
            refused = self.negatives.pairs(part) if split == "pool" else None
            logits = torch.addmm(self.weights[-1], x, self.weights[:-1])
            found.append(predict.arrays(names, logits, features=x, refused=refused))
        return {name: np.concatenate([arrays[name] for arrays in found]) for name in names}

    def figures(self) -> Figures:
        return Figures(
            backbone="linear",
            precision="fp64",
            parameters=self.weights.numel(),
            steps=self.steps,
            images=self.images,
        )


class _Rows:
    """The images of a split as scaled vectors."""

    def __init__(self, data: StageData, split: Any, settings: Head, device: torch.device) -> None:
        self._items = Items(data, split, device=device, dtype=torch.float64, feature_noise=0.0)
        # Pixels come channel by channel.
        pixels = int(np.prod(data.shape)) // len(data.std)
        std = torch.tensor(data.std, dtype=torch.float64, device=device).repeat_interleave(pixels)
        self.width = len(std)
        # `plain` divides each feature by its own.
        spread = std if settings.scaling != "each" else (std > 0).to(std.dtype)
        self._factor = spread / spread.square().sum().sqrt().clamp(min=torch.finfo(std.dtype).tiny)
        self._unit = settings.scaling == "rows"

    def parts(self, ids: Ids, at_once: int) -> Iterator[tuple[Ids, Tensor]]:
        """The ids in parts, at least one, with their vectors, float64 [n, D] on the device."""
        parts = [
            ids[start : start + at_once] for start in range(0, max(len(ids), 1), max(at_once, 1))
        ]
        for part, stored in zip(parts, self._items.rows(parts), strict=True):
            x = self._items.plain(stored).flatten(1) * self._factor
            yield part, torch.nn.functional.normalize(x, dim=1) if self._unit else x
