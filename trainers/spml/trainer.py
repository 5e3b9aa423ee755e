"""The training of one stage: a network with one logit a category, a loss for what is known, Adam.

A stage that reads the scores of the one before is its student, and learns the pseudo labels that
those make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainers import predict, randomness
from trainers.adam import Adam
from trainers.artefacts import StageFiles
from trainers.data.items import Items, StageData, holds_images, to_device
from trainers.data.sampler import TwoStreamSampler
from trainers.distributed.parallel import data_parallel
from trainers.distributed.ranks import Ranks
from trainers.errors import DataError
from trainers.method import StagePlan
from trainers.networks import backbones as networks
from trainers.networks.precision import precision_used
from trainers.networks.pretrained import start_from
from trainers.spml import losses
from trainers.spml.labels import (
    NONE,
    asymmetric_pseudo_labels,
    known_states,
    pseudo_labels,
    rows_of,
    taken_for_absent,
)
from trainers.spml.settings import Spml
from trainers.stage import Ids, StageInputs
from trainers.trainer import Figures, Split, Trainer

_VIEWS, _INIT, _BATCHES, _ESTIMATES = 11, 21, 31, 41
_TEACHER, _STUDENT = 1, 2
_FIGURE = "pseudo labels per image"


class SpmlTrainer(Trainer):
    """Network, optimiser, and what a loss keeps beside them: estimated or soft labels."""

    if_it_diverges: ClassVar[str] = "a lower method.learning_rate, or method.precision fp32"
    if_memory_is_short: ClassVar[str] = "a smaller method.batch_size or backbone"

    def __init__(
        self,
        plan: StagePlan,
        settings: Spml,
        data: StageData,
        inputs: StageInputs,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks,
        parent: StageFiles | None,
    ) -> None:
        self.settings, self.data, self.device, self.ranks = settings, data, device, ranks
        self.is_student = "scores" in plan.reads
        # Of a student everything is drawn anew, also where no question came between the two.
        self.seed = randomness.key(seed, _STUDENT if self.is_student else _TEACHER)
        self.precision = precision_used(settings.precision, str(device), data.kind)
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self.items = self._items("train")
        self.ids, states = self._learned(inputs, parent)
        if len(self.ids) == 0:
            raise DataError(f"{data.folder}: method {settings.name} has no label to learn from")
        self.states = to_device(states, device)
        self.sampler = TwoStreamSampler(
            unlabelled_ids=self.ids,
            labelled_ids=self.ids[:0],
            batch_size=settings.batch_size,
            labelled_share=None,
            seed=randomness.key(self.seed, _BATCHES),
        )
        self.backbone = networks.backbone_name(_backbone(settings.backbone, data), data)
        self.net = self._network()
        self.forward = data_parallel(self.net, ranks)
        self.optimizer = Adam(list(self.net.parameters()))
        self.step = 0
        self.estimate: Tensor | None = None
        self.estimator: Adam | None = None
        self.soft: Tensor | None = None
        self.counts: Tensor | None = None
        if not self.is_student:
            self._begin_labels()

    def _items(self, split: Any) -> Items:
        return Items(self.data, split, device=self.device, dtype=self.dtype, feature_noise=0.0)

    def _learned(
        self, inputs: StageInputs, parent: StageFiles | None
    ) -> tuple[Ids, npt.NDArray[np.int8]]:
        """The images that are learned from, ascending, and their labels: of a student all of the
        pool, else those of which something is known.
        """
        states, settings = known_states(inputs, self.data.num_classes), self.settings
        if not self.is_student:
            some = (states != 0).any(1)
            return inputs.pool_ids[some], states[some]
        assert parent is not None
        said = parent.scores()
        at = rows_of(inputs.pool_ids, np.asarray(said["item_ids"]))
        probabilities = np.asarray(said["probabilities"])[at]
        found = pseudo_labels(
            probabilities, states, settings.threshold, keep_observed=settings.keep_observed
        )
        return inputs.pool_ids, found

    def _network(self) -> networks.TwoHeads:
        net = networks.build(
            self.backbone,
            self.data,
            single_head=True,
            seed=randomness.key(self.seed, _INIT),
        )
        if self.settings.weights is not None:
            start_from(net.trunk, self.settings.weights)
        if not holds_images(self.data.kind) and self.settings.scaling == "common":
            net.trunk = nn.Sequential(_Spread(self.data.std), net.trunk)
        net.to(device=self.device, dtype=self.dtype)
        if networks.channels_last(self.backbone):
            net.to(memory_format=torch.channels_last)
        return net

    def _begin_labels(self) -> None:
        """What ROLE and APL keep of each image and category."""
        settings = self.settings
        if settings.loss == "role":
            start = _first_estimates(self.states, self.ids, randomness.key(self.seed, _ESTIMATES))
            estimate = start.to(self.dtype).requires_grad_()
            self.estimate, self.estimator = estimate, Adam([estimate])
        if settings.loss == "em_apl":
            self.soft = torch.full(self.states.shape, NONE, device=self.device)
            self.counts = taken_for_absent(
                self.states,
                share=settings.pseudo_share,
                epochs=max(settings.epochs - settings.warmup_epochs, 1),
            )

    def epoch(self, number: int) -> dict[str, Tensor]:
        """One pass over the images that are learned from."""
        self.net.train()
        history = [self._take_step(*batch) for batch in self._batches(number)]
        # Ranks that saw other images have other statistics of batch norm.
        self.ranks.mean([b for b in self.net.buffers() if b.is_floating_point()])
        # What were taken after the last epoch nothing would learn.
        if (
            self.soft is not None
            and self.settings.warmup_epochs <= number + 1 < self.settings.epochs
        ):
            self._take_for_absent()
        return {"loss": torch.stack(history)}

    def _batches(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's views of each step, and the rows of all ranks' images, in their order."""
        epoch, world = self.sampler.epoch(number), self.ranks.world_size
        shares = [epoch.share(rank, world).ids for rank in range(world)]
        mine, per_rank = shares[self.ranks.rank], shares[0].shape[1]
        rows = to_device(rows_of(np.concatenate(shares, 1), self.ids), self.device)
        stream = randomness.key(self.seed, _VIEWS, number)
        at_once = max(self.items.at_once // per_rank, 1)
        starts = range(0, len(mine), at_once)
        parts = [mine[start : start + at_once].reshape(-1) for start in starts]
        for start, part, stored in zip(starts, parts, self.items.rows(parts), strict=True):
            views = self._views(stored, to_device(part, self.device), stream)
            views = views.reshape(-1, per_rank, *views.shape[1:])
            yield from zip(views, rows[start : start + at_once], strict=True)

    def _views(self, stored: Tensor, ids: Tensor, stream: int) -> Tensor:
        if not self.items.images:
            return self.items.plain(stored)
        return self.items.view(stored, ids, torch.zeros_like(ids), stream)

    def _take_step(self, view: Tensor, rows: Tensor) -> Tensor:
        """Moves the network, and estimated labels, by one batch. Returns the loss.

        The loss of the whole batch, which need not be a mean over images, is made of all ranks'
        logits by each of them; each sends back the part of its own images.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            mine = self.forward(view)[0].to(self.dtype)
        logits = self.ranks.gather_rows(mine.detach()).requires_grad_()
        self.optimizer.zero_grad()
        loss = self.loss(torch.sigmoid(logits), rows)
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        first = self.ranks.rank * len(mine)
        # DDP takes the mean over ranks, and the loss is a sum over them.
        mine.backward(self.ranks.world_size * logits.grad[first : first + len(mine)])
        self.optimizer.step(self.settings.learning_rate)
        if self.estimator is not None:
            self.estimator.step(self.settings.learning_rate * self.settings.estimator_rate)
            self.estimator.zero_grad()
        self.step += 1
        return loss.detach()

    def loss(self, p: Tensor, rows: Tensor) -> Tensor:
        """Returns the loss of a batch.

        Args:
            p: probabilities [b, L]. rows: int64 [b], of its images among those learned from.
        """
        settings, z = self.settings, self.states[rows]
        if self.is_student:
            return losses.ignore_unknown(p, z)
        match settings.loss:
            case "an":
                return losses.assume_negative(p, z)
            case "wan":
                return losses.assume_negative(p, z, weight=1 / max(p.shape[1] - 1, 1))
            case "an_ls":
                return losses.assume_negative_smoothed(p, z, smoothing=settings.smoothing)
            case "iu":
                return losses.ignore_unknown(p, z)
            case "em" | "em_apl":
                return losses.entropy_maximisation(
                    p,
                    z,
                    weight=settings.entropy_weight,
                    soft=None if self.soft is None else self.soft[rows],
                    soft_weight=settings.pseudo_weight,
                )
        assert settings.expected_positives is not None
        if self.estimate is None:
            return losses.expected_positive(p, z, positives=settings.expected_positives)
        estimate = torch.sigmoid(self.estimate[rows])
        return losses.role(p, z, estimate, positives=settings.expected_positives)

    def _take_for_absent(self) -> None:
        said = self.scores("pool", self.ids, ("probabilities",))["probabilities"]
        assert self.soft is not None and self.counts is not None
        p = to_device(said, self.device).to(self.soft.dtype)
        self.soft = asymmetric_pseudo_labels(p, self.states, self.soft, self.counts)

    def is_over(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Returns whether validation has not gained for `patience` epochs."""
        values = [entry["validation"] for entry in history]
        patience = self.settings.patience
        if patience is None or len(values) <= patience or None in values:
            return False
        return bool(max(values[-patience:]) <= max(values[:-patience]))

    def state(self) -> dict[str, Any]:
        """Returns all that the next epoch depends on, estimated and soft labels among it."""
        found = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state(),
            "step": self.step,
        }
        if self.estimate is not None and self.estimator is not None:
            found["estimate"] = self.estimate.detach()
            found["estimator"] = self.estimator.state()
        return found | ({} if self.soft is None else {"soft": self.soft})

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load(state["optimizer"])
        self.step = int(state["step"])
        if self.estimate is not None and self.estimator is not None:
            with torch.no_grad():
                self.estimate.copy_(state["estimate"])
            self.estimator.load(state["estimator"])
        if self.soft is not None:
            self.soft = state["soft"].to(self.device)

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        """Returns what the network says, of each category by itself."""
        self.net.eval()
        items = self._test if split == "test" else self.items
        return predict.judge(self.net, items, ids, names, self.ranks, several=True)

    @cached_property
    def _test(self) -> Items:
        return self._items("test")

    def figures(self) -> Figures:
        """Returns the figures so far; of a student how many pseudo labels are positive."""
        count = float((self.states > 0).sum() / len(self.states))
        return Figures(
            backbone=self.backbone,
            precision=self.precision,
            parameters=sum(weight.numel() for weight in self.net.parameters()),
            steps=self.step,
            images=self.step * self.settings.batch_size,
            named={_FIGURE: count} if self.is_student else {},
        )

    def model(self) -> dict[str, Any]:
        """Returns the network's weights and what it is."""
        return {
            "method": type(self.settings).name,
            "backbone": self.backbone,
            "num_classes": self.data.num_classes,
            "shape": list(self.data.shape),
            "net": self.net.state_dict(),
        }

    def predictor(self) -> dict[str, Any]:
        """Returns the network's weights."""
        return {"net": self.net.state_dict()}

    def predict_with(self, model: dict[str, Any]) -> None:
        """Lets scores be those of another network."""
        self.net.load_state_dict(model["net"])


class _Spread(nn.Module):
    """Gives features, each of standard deviation 1, their own spread back; their mean square is
    then 1.
    """

    factor: Tensor

    def __init__(self, std: Sequence[float]) -> None:
        super().__init__()
        spread = torch.tensor(std, dtype=torch.float64)
        factor = spread / spread.square().mean().sqrt().clamp(min=torch.finfo(spread.dtype).tiny)
        self.register_buffer("factor", factor, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _backbone(setting: str, data: StageData) -> str:
    return "linear" if setting == "auto" and not holds_images(data.kind) else setting


def _first_estimates(states: Tensor, ids: Ids, stream: int) -> Tensor:
    """Returns logits [n, L] of ROLE's labels before any step: near what is known, and elsewhere of
    probabilities drawn between 0.4 and 0.6, by image (the source leaves both open).
    """
    keys = to_device(ids, states.device)
    bits = randomness.draws(stream, keys, torch.zeros_like(keys), states.shape[1])
    p = 0.4 + 0.2 * randomness.uniforms(bits)
    p = torch.where(states > 0, 0.995, torch.where(states < 0, 0.005, p))
    return torch.logit(p)
