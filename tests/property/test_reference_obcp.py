"""A training by ObCP is what its definition says, computed a second time, row by row, with nothing
but plain operations (I23, I24).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.obcp import SMALL, obcp
from tests.helpers.stage_world import some_inputs, write_cache
from trainers.data.items import open_data
from trainers.obcp.batches import Batch
from trainers.obcp.encoder import Encoder
from trainers.obcp.settings import ObcpConfig
from trainers.obcp.trainer import ObcpTrainer
from trainers.stage import StageInputs

EPOCHS = 2
"""One before the first question, one after it."""


def unit(vector: Tensor) -> Tensor:
    return vector / (vector * vector).sum().sqrt()


def feature(net: Encoder, x: Tensor) -> Tensor:
    return torch.stack([unit(row) for row in net.projection(net.trunk(x))])


def nce(query: Tensor, positive: Tensor, others: list[Tensor], heat: float) -> Tensor:
    top = (query @ positive / heat).exp()
    return -(top / (top + (torch.stack(others) @ query / heat).exp().sum())).log()


class Reference:
    """The training of Zhang et al. 2022, written out. Only what is random comes from `trainer`:
    batches, views, and which labelled image and which key is drawn.
    """

    def __init__(self, trainer: ObcpTrainer, inputs: StageInputs) -> None:
        self.trainer, self.config = trainer, trainer.config
        self.query, self.key = copy.deepcopy(trainer.encoder), copy.deepcopy(trainer.key)
        self.queue = list(trainer.queue.keys.clone())
        self.queue_ids = [-1] * len(self.queue)
        self.label_ids = inputs.label_ids.tolist()
        self.labels = dict(zip(self.label_ids, inputs.labels.tolist(), strict=True))
        self.refused: dict[int, list[int]] = {}
        for id_, class_ in zip(inputs.negative_ids, inputs.negative_classes, strict=True):
            if int(id_) not in self.labels:
                self.refused.setdefault(int(id_), []).append(int(class_))
        self.kept: dict[int, Tensor] = {}
        self.velocity: dict[str, Tensor] = {}

    def train(self) -> None:
        for epoch in range(EPOCHS):
            asked = epoch >= (self.config.first_query_epoch or 0)
            if asked and not self.kept:
                self.key.eval()
                stored = next(self.trainer.items.rows([np.array(self.label_ids)]))
                with torch.no_grad():
                    keys = feature(self.key, self.trainer.items.plain(stored))
                self.kept = dict(zip(self.label_ids, keys, strict=True))
            self.query.train()
            self.key.train()
            steps, batches = self.trainer.epoch_batches(epoch)
            for step, batch in enumerate(batches):
                at = (epoch + step / steps) / self.config.epochs
                rate = self.config.learning_rate * (1 + math.cos(math.pi * at)) / 2
                self.step(batch, self.trainer.streams(epoch), rate, asked=asked)

    def step(self, batch: Batch, streams: tuple[int, int], rate: float, *, asked: bool) -> None:
        keep = self.config.key_momentum
        with torch.no_grad():
            for theirs, own in zip(self.key.parameters(), self.query.parameters(), strict=True):
                theirs.copy_(keep * theirs + (1 - keep) * own)
            keys = feature(self.key, batch.key_view)
        b = len(keys)
        trunk = self.query.trunk(batch.views)
        p = self.query.class_head(trunk[:b]).softmax(1)
        q = [unit(row) for row in self.query.projection(trunk[b:])]
        loss = self.loss(batch, streams, p, q, keys, asked=asked)
        names, weights = zip(*self.query.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for name, weight, gradient in zip(names, weights, gradients, strict=True):
                decayed = gradient + self.config.weight_decay * weight
                before = self.velocity.get(name, torch.zeros_like(weight))
                self.velocity[name] = self.config.momentum * before + decayed
                weight -= rate * self.velocity[name]
        ids = batch.ids.tolist()
        self.queue = [*self.queue[b:], *keys]
        self.queue_ids = [*self.queue_ids[b:], *ids]
        # It never trains itself: only where its queue begins moves on.
        queue = self.trainer.queue
        queue.at = (queue.at + b) % len(queue.keys)
        if asked:
            self.kept |= {
                id_: key for id_, key in zip(ids, keys, strict=True) if id_ in self.labels
            }

    def loss(
        self,
        batch: Batch,
        streams: tuple[int, int],
        p: Tensor,
        q: list[Tensor],
        keys: Tensor,
        *,
        asked: bool,
    ) -> Tensor:
        config, ids = self.config, batch.ids.tolist()
        label_rows = [row for row, id_ in enumerate(ids) if id_ in self.labels]
        refused_rows = [row for row, id_ in enumerate(ids) if asked and id_ in self.refused]
        in_sup = -sum(p[row, self.labels[ids[row]]].log() for row in label_rows) / len(label_rows)
        kinds: dict[str, list[Tensor]] = {}
        for row, id_ in enumerate(ids):
            others, heat = self.queue, config.temperature
            kind = "plain"
            if row in refused_rows:
                kind, others = "refused", self.exchanged(batch, streams, row, id_)
            if asked and id_ in self.labels and config.mask_same_class:
                mine = self.labels[id_]
                others = [
                    key
                    for key, of in zip(self.queue, self.queue_ids, strict=True)
                    if self.labels.get(of) != mine
                ]
            value = nce(q[row], keys[row], others, heat)
            if asked and id_ in self.labels:
                kind = "labelled"
                if config.class_positives:
                    partner = self.partner(batch, row - label_rows[0], id_)
                    positive = keys[row] if partner is None else self.kept[partner]
                    value = (value + nce(q[row], positive, others, heat)) / 2
            kinds.setdefault(kind, []).append(value)
        in_contrast = sum(sum(values) / len(values) for values in kinds.values())
        refusals = [
            sum(
                -(1 - p[row, c]).log()
                for c in self.refused[ids[row]]
                if p[row, c] >= 1 / p.shape[1]
            )
            for row in refused_rows
        ]
        in_negative: Any = sum(refusals) / max(len(refusals), 1)
        total: Tensor = (
            in_sup + config.contrastive_weight * in_contrast + config.negative_weight * in_negative
        )
        return total

    def partner(self, batch: Batch, at: int, id_: int) -> int | None:
        assert batch.partners is not None
        row = int(batch.partners[at])
        if row == len(self.label_ids):
            assert list(self.labels.values()).count(self.labels[id_]) == 1
            return None
        other = self.label_ids[row]
        assert other != id_ and self.labels[other] == self.labels[id_]
        return other

    def exchanged(self, batch: Batch, streams: tuple[int, int], row: int, id_: int) -> list[Tensor]:
        """The queue of a row with a refused class."""
        if self.config.class_negatives == 0:
            return self.queue
        at = batch.refused_rows.tolist().index(row)
        refused = int(batch.refused_classes[at])
        assert refused in self.refused[id_]
        members, valid, slots = (rows[at] for rows in self.trainer.objective.draw(batch, streams))
        who = [self.label_ids[int(m)] for m in members[valid]]
        assert {self.labels[other] for other in who} <= {refused}
        of_class = list(self.labels.values()).count(refused)
        if not self.config.with_replacement:
            assert len(set(who)) == len(who) == min(of_class, self.config.class_negatives or 0)
        places = slots[valid].tolist()
        assert len(set(places)) == len(places)
        others = list(self.queue)
        # Ours begins at the oldest key, the trainer's at the first of its table.
        oldest = self.trainer.queue.at
        for other, place in zip(who, places, strict=True):
            others[(place - oldest) % len(others)] = self.kept[other]
        return others


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mask_same_class": True, "with_replacement": True, "projection": "mlp"},
    ],
    ids=["as published", "options"],
)
def test_epochs_of_training_are_those_of_the_definition(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    config: ObcpConfig = dataclasses.replace(SMALL, **changes)
    inputs = two_refusals(some_inputs(truth, labelled=16, refused=30))
    data = open_data(folder)
    trained = obcp(config, data, inputs)
    moving = Reference(obcp(config, data, inputs), inputs)
    moving.train()
    for epoch in range(EPOCHS):
        trained.train_epoch(epoch)
    for found, expected in ((trained.encoder, moving.query), (trained.key, moving.key)):
        wanted = expected.state_dict()
        for name, value in found.state_dict().items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-9, atol=1e-11, msg=name)
    oldest = trained.queue.at
    torch.testing.assert_close(
        trained.queue.keys.roll(-oldest, 0), torch.stack(moving.queue), rtol=1e-9, atol=1e-11
    )
    assert trained.queue.ids.roll(-oldest).tolist() == moving.queue_ids
    kept = torch.stack([moving.kept[id_] for id_ in inputs.label_ids.tolist()])
    torch.testing.assert_close(trained.labelled.features[:-1], kept, rtol=1e-9, atol=1e-11)


def two_refusals(inputs: StageInputs) -> StageInputs:
    """The same, where the first refused images have a second refused class."""
    twice = inputs.negative_ids[:8]
    ids = np.concatenate([inputs.negative_ids, twice])
    classes = np.concatenate([inputs.negative_classes, (inputs.negative_classes[:8] + 1) % 4])
    order = np.lexsort((classes, ids))
    return dataclasses.replace(
        inputs, negative_ids=ids[order], negative_classes=classes[order].astype(np.int32)
    )
