"""ObCP: the part of one continuous training that a stage is, epoch by epoch.

Sources: Zhang et al. 2022 (One-bit Active Query with Contrastive Pairs, CVPR); He et al. 2020
    (arXiv:1911.05722) for the queue, the key encoder and the views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers import predict, randomness
from trainers.artefacts import StageFiles
from trainers.data.items import Items, StageData, to_device
from trainers.data.sampler import TwoStreamSampler
from trainers.distributed.parallel import data_parallel
from trainers.distributed.ranks import Ranks
from trainers.method import StagePlan
from trainers.negatives import Negatives
from trainers.networks import backbones as networks
from trainers.networks.precision import precision_used
from trainers.obcp import encoder
from trainers.obcp.batches import Batch, Batches, check_inputs
from trainers.obcp.history import Collected, History
from trainers.obcp.memory import LabelledFeatures, Queue
from trainers.obcp.objective import Objective
from trainers.obcp.settings import ObcpConfig
from trainers.sgd import Sgd
from trainers.stage import Ids, StageInputs
from trainers.trainer import Figures, Split, Trainer

_INIT, _QUEUE = 21, 22
_MEMBERS, _SLOTS = 33, 34


class ObcpTrainer(Trainer):
    """Encoder, key encoder, optimiser, queue, labelled features and the predictions added up so
    far. All of it is in the state, with the seed: a stage goes on where the one before stopped.
    """

    if_it_diverges: ClassVar[str] = (
        "a lower method.learning_rate, a lower method.contrastive_weight, or method.precision fp32"
    )
    if_memory_is_short: ClassVar[str] = "a smaller method.batch_size, queue_size or backbone"

    def __init__(
        self,
        plan: StagePlan,
        settings: ObcpConfig,
        data: StageData,
        inputs: StageInputs,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks,
        parent: StageFiles | None,
    ) -> None:
        check_inputs(settings, inputs, data, ranks)
        self.config, self.plan, self.data, self.inputs = settings, plan, data, inputs
        self.device, self.ranks, self.seed = device, ranks, seed
        self.precision = precision_used(settings.precision, str(device), data.kind)
        self.autocast = self.precision == "bf16"
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self.items = Items(
            data, "train", device=device, dtype=self.dtype, feature_noise=settings.feature_noise
        )
        self.negatives = Negatives(inputs, len(data.train), data.num_classes)
        self.batches = Batches(settings, inputs, self.items, self.negatives, ranks)
        self.backbone = networks.backbone_name(settings.backbone, data)
        self._build_networks()
        self.queue = Queue(
            settings.queue_size,
            settings.projection_dim,
            seed=randomness.key(seed, _QUEUE),
            device=device,
            dtype=self.dtype,
        )
        self.labelled = LabelledFeatures(
            inputs.label_ids,
            inputs.labels,
            num_classes=data.num_classes,
            items=len(data.train),
            dim=settings.projection_dim,
            device=device,
            dtype=self.dtype,
        )
        self.objective = Objective(settings, self.queue, self.labelled)
        self.history = History(
            plan.settings["mean_windows"],
            plan.settings["recent_windows"],
            images=len(inputs.pool_ids),
            classes=data.num_classes,
        )
        self._began_with(inputs.label_ids)
        self.step = 0
        self._said: npt.NDArray[np.float32] | None = None

    def _build_networks(self) -> None:
        """Both encoders, with the same weights, and the optimiser of the one that is trained."""
        self.encoder, self.key = (
            encoder.build(
                self.backbone,
                self.data,
                self.config,
                seed=randomness.key(self.seed, _INIT),
                device=self.device,
            )
            for _ in range(2)
        )
        self.key.requires_grad_(False)
        self.weights = list(self.encoder.parameters())
        self.key_weights = list(self.key.parameters())
        self.optimizer = Sgd(
            self.weights,
            momentum=self.config.momentum,
            nesterov=False,
            weight_decay=self.config.weight_decay,
        )
        self.forward = data_parallel(self.encoder, self.ranks)

    def _began_with(self, ids: Ids) -> None:
        """These images had a label when the training began: no answer confirmed them."""
        self.initial_ids = ids
        if not self.config.confirmed_labels:
            self.batches.count_labels_of(ids)

    def epoch(self, number: int) -> Mapping[str, Tensor]:
        """One pass over the images without a label."""
        names = ("loss", "loss_class", "loss_contrast", "loss_negative")
        return dict(zip(names, self.train_epoch(number).unbind(1), strict=True))

    def train_epoch(self, number: int) -> Tensor:
        """Trains one pass over the images without a label. Returns loss, cross entropy, contrastive
        and negative loss of each step, [steps, 4] on the device.
        """
        steps, batches = self.epoch_batches(number)
        history = torch.zeros(steps, 4, device=self.device, dtype=torch.float64)
        collected = None
        if self._collects(number, "online"):
            collected = Collected(len(self.items), self.data.num_classes, self.device)
        self.encoder.train()
        self.key.train()  # its batch norm statistics are its own, from its own views
        for step, batch in enumerate(batches):
            at = (number + step / steps) / self.config.epochs
            history[step] = self.take_step(
                batch,
                number,
                learning_rate=self.config.learning_rate * (1 + math.cos(math.pi * at)) / 2,
                collected=collected,
            )
        self.ranks.mean([history, *self._statistics()])
        if collected is not None:
            ids, said = collected.means(self._unlabelled, self.ranks)
            self._add(number, ids, said)
        elif self._collects(number, "eval"):
            found = self.scores("validation", self._unlabelled, ("probabilities",))
            self._add(number, self._unlabelled, found["probabilities"])
        return history

    def epoch_batches(self, number: int) -> tuple[int, Iterator[Batch]]:
        """Returns how many steps an epoch has, and this rank's batches. After the first question
        every labelled image has a key by then.
        """
        # By the seed of the training's first stage, once the state is loaded.
        epoch = TwoStreamSampler(
            unlabelled_ids=self._unlabelled,
            labelled_ids=self.inputs.label_ids,
            batch_size=self.config.batch_size,
            labelled_share=self.config.labelled_share,
            seed=self.seed,
        ).epoch(number)
        asked = number >= self.config.stage_one
        if asked:
            self._fill_labelled()
        labelled = self.labelled if asked else None
        return epoch.steps, self.batches.of(number, epoch, self.seed, labelled=labelled)

    def take_step(
        self,
        batch: Batch,
        number: int,
        *,
        learning_rate: float,
        collected: Collected | None = None,
    ) -> Tensor:
        """Moves both encoders and the queue by one batch of epoch `number`. Returns the terms
        of the objective, [4] on the device. Nothing here waits for the device.
        """
        encoder.follow(self.key_weights, self.weights, self.config.key_momentum)
        rows = len(batch.key_view)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            with torch.no_grad():
                keys = self.key.keys(batch.key_view)
            logits, features = self.forward(batch.views, rows)
        logits = logits.to(features.dtype)
        terms = self.objective.terms(batch, logits, features, keys, self.streams(number))
        self.optimizer.zero_grad()
        terms[0].backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(learning_rate)
        self.step += 1
        # In the order of the whole batch, which no number of ranks changes.
        everyone = self.ranks.gather_rows(keys)[batch.order]
        if batch.labelled_rows is not None:
            first = len(everyone) - len(batch.labelled_rows)
            self.labelled.put(batch.labelled_rows, everyone[first:])
        self.queue.push(everyone, batch.all_ids)
        if collected is not None:
            collected.add(batch.ids, logits.detach())
        return terms.detach()

    def streams(self, number: int) -> tuple[int, int]:
        """Random numbers of an epoch: which labelled images take a key's place, and which keys'."""
        members, slots = (randomness.key(self.seed, use, number) for use in (_MEMBERS, _SLOTS))
        return members, slots

    @cached_property
    def _unlabelled(self) -> Ids:
        return np.setdiff1d(self.inputs.pool_ids, self.inputs.label_ids, assume_unique=True)

    def _statistics(self) -> list[Tensor]:
        """Batch norm statistics of both encoders; ranks that saw other images have others, so their
        mean is used.
        """
        return [
            buffer
            for net in (self.encoder, self.key)
            for buffer in net.buffers()
            if buffer.is_floating_point()
        ]

    def _fill_labelled(self) -> None:
        """Each labelled image has a key: where it has none yet, that of the image as it is."""
        ids = self.inputs.label_ids[~self.labelled.known]
        if len(ids):
            rows = to_device(self.labelled.row_of[ids], self.device)
            self.labelled.put(rows, encoder.keys_of(self.key, self.items, ids, self.ranks))
            self.labelled.known[:] = True

    def _collects(self, number: int, how: str) -> bool:
        return self.history.needs(number) and self.config.predictions == how

    def _add(self, number: int, ids: Ids, said: npt.NDArray[Any]) -> None:
        """Adds what the model says of images without a label; the first rank keeps it for all."""
        if self.ranks.first:
            rows = np.searchsorted(self.inputs.pool_ids, ids)
            self.history.add(number, rows, said)

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, besides the request."""
        return {
            "encoder": self.encoder.state_dict(),
            "key": self.key.state_dict(),
            "momentum": self.optimizer.velocities,
            "queue": self.queue.state(),
            "labelled": self.labelled.state(),
            "history": self.history.state(),
            "initial_ids": torch.from_numpy(self.initial_ids),
            "seed": self.seed,
            "step": self.step,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken, with its random numbers."""
        self.encoder.load_state_dict(state["encoder"])
        self.key.load_state_dict(state["key"])
        self.optimizer.velocities = list(state["momentum"])
        self.queue.load(state["queue"])
        self.labelled.load(state["labelled"])
        # The first rank keeps the sums for all.
        self.history.load(state["history"] if self.ranks.first else [])
        self._began_with(state["initial_ids"].cpu().numpy())
        self.seed, self.step = int(state["seed"]), int(state["step"])

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        """Returns what the encoder says, of the pool without refused classes; `uncertainty` is that
        of a round after this stage or, where no predictions were added up, the entropy.
        """
        self.encoder.eval()
        items = self._test if split == "test" else self.items
        negatives = self.negatives if split == "pool" else None
        uncertainty = self._shared_uncertainty() if "uncertainty" in names else None
        asked = [name for name in names if name != "uncertainty"]
        if "uncertainty" in names and uncertainty is None:
            asked.append("raw_entropy")
        found = predict.judge(self.encoder, items, ids, asked, self.ranks, negatives)
        if "uncertainty" in names:
            rows = np.searchsorted(self.inputs.pool_ids, ids)
            found["uncertainty"] = (
                found["raw_entropy"] if uncertainty is None else uncertainty[rows]
            )
        return {name: found[name] for name in names}

    def _uncertainty(self) -> npt.NDArray[np.float32] | None:
        """[P] of the pool's images; None on all ranks but the first."""
        if self._said is not None:
            return self._said
        return self.history.uncertainty(self.plan.epochs[1])

    def _shared_uncertainty(self) -> npt.NDArray[np.float32] | None:
        own = self._uncertainty()
        content = self.ranks.share_bytes(None if own is None else own.tobytes(), self.device)
        return None if content is None else np.frombuffer(content, np.float32)

    @cached_property
    def _test(self) -> Items:
        return Items(self.data, "test", device=self.device, dtype=self.dtype, feature_noise=0.0)

    def figures(self) -> Figures:
        """Returns the figures of the training so far."""
        return Figures(
            backbone=self.backbone,
            precision=self.precision,
            parameters=sum(weight.numel() for weight in self.weights),
            steps=self.step,
            images=self.step * self.config.batch_size,
        )

    def model(self) -> dict[str, Any]:
        """Returns what a prediction needs: the encoder, which network it is, and how uncertain it
        was of each image.
        """
        uncertainty = self._uncertainty()
        return {
            "method": type(self.config).name,
            "backbone": self.backbone,
            "num_classes": self.data.num_classes,
            "shape": list(self.data.shape),
            "encoder": self.encoder.state_dict(),
            "uncertainty": None if uncertainty is None else torch.from_numpy(uncertainty),
        }

    def predictor(self) -> dict[str, Any]:
        """Returns the encoder's weights."""
        return {"encoder": self.encoder.state_dict()}

    def predict_with(self, model: dict[str, Any]) -> None:
        """Lets scores be those of another encoder."""
        self.encoder.load_state_dict(model["encoder"])
        if model.get("uncertainty") is not None:
            self._said = model["uncertainty"].cpu().numpy()
