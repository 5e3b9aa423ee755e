"""The objective of a step of ObCP (Zhang et al. 2022), given what the networks said of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers import randomness
from trainers.obcp import losses
from trainers.obcp.batches import Batch
from trainers.obcp.memory import LabelledFeatures, Queue
from trainers.obcp.settings import ObcpConfig


@dataclass(frozen=True, slots=True)
class Objective:
    """L = L_sup + a L_ctr + b L_neg, by what the queue and the labelled features now hold. Neither
    gets a gradient. b: rows of a batch, d: length of a feature.
    """

    config: ObcpConfig
    queue: Queue
    labelled: LabelledFeatures

    def terms(
        self,
        batch: Batch,
        logits: Tensor,
        features: Tensor,
        keys: Tensor,
        streams: tuple[int, int],
    ) -> Tensor:
        """Returns [4]: L, L_sup, L_ctr and L_neg. L_ctr is the sum of the mean losses of rows with
        a label, with a refused class and with neither; before the first question it is the mean of
        all rows.

        Args:
            logits: [b, C]. features, keys: [b, d] of unit length; the keys carry no gradient.
            streams: of the labelled images that take the place of a key, and of the keys.
        """
        cut = len(logits) - len(batch.labels)
        entropy = functional.cross_entropy(logits[cut:], batch.labels, reduction="none")
        by_class = (entropy * batch.class_weights).sum()
        contrast = self._contrast(batch, features, keys, streams)
        by_contrast = (contrast * batch.contrast_weights).sum()
        refused = losses.negative(logits, batch.negative_rows, batch.negative_classes)
        by_refusal = refused.sum() * batch.negative_weight
        config = self.config
        loss = (
            by_class + config.contrastive_weight * by_contrast + config.negative_weight * by_refusal
        )
        return torch.stack([loss, by_class, by_contrast, by_refusal])

    def _contrast(
        self, batch: Batch, features: Tensor, keys: Tensor, streams: tuple[int, int]
    ) -> Tensor:
        """The contrastive loss of each row, [b]."""
        heat = self.config.temperature
        others = features @ self.queue.keys.T / heat
        own = (features * keys).sum(1) / heat
        if batch.partners is None:
            return losses.contrast(own, others)
        cut = len(features) - len(batch.labels)
        others = self._with_refused(batch, features, others, streams)
        if self.config.mask_same_class:
            same = self.labelled.labels_of(self.queue.ids)[None] == batch.labels[:, None]
            others = torch.cat([others[:cut], others[cut:].masked_fill(same, -torch.inf)])
        loss = losses.contrast(own, others)
        if not self.config.class_positives:
            return loss
        partners = self.labelled.features.index_select(0, batch.partners)
        # An image that is alone in its class has its own key for a partner.
        alone = (batch.partners == len(self.labelled.ids))[:, None]
        partners = torch.where(alone, keys[cut:], partners)
        paired = losses.contrast((features[cut:] * partners).sum(1) / heat, others[cut:])
        return torch.cat([loss[:cut], (loss[cut:] + paired) / 2])

    def _with_refused(
        self, batch: Batch, features: Tensor, others: Tensor, streams: tuple[int, int]
    ) -> Tensor:
        """Similarities [b, K] to what each row is held against: for one with a refused class to
        labelled images of that class, in the place of random keys.
        """
        rows = batch.refused_rows
        if self.replaced == 0 or len(rows) == 0:
            return others
        members, valid, slots = self.draw(batch, streams)
        mine = features.index_select(0, rows)
        by = (self.labelled.features[members] * mine[:, None]).sum(2) / self.config.temperature
        return others.index_copy(
            0, rows, losses.replaced(others.index_select(0, rows), slots, by, valid)
        )

    @property
    def replaced(self) -> int:
        """N: keys that give way for a row with a refused class."""
        given = self.config.class_negatives
        return self.config.queue_size // 2 if given is None else given

    def draw(self, batch: Batch, streams: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what is drawn for the r rows with a refused class, each [r, n]: rows of the
        labelled features, whether they count, and the place in the queue that each one takes.
        """
        config, which = (
            self.config,
            (batch.ids[batch.refused_rows], batch.visits[batch.refused_rows]),
        )
        needed = self.labelled.bits_of_classes(self.replaced, config.with_replacement)
        members, valid = self.labelled.of_classes(
            batch.refused_classes,
            randomness.draws(streams[0], *which, needed),
            count=self.replaced,
            with_replacement=config.with_replacement,
        )
        slots = randomness.draws(streams[1], *which, config.queue_size)
        return members, valid, slots.topk(members.shape[1], largest=False).indices
