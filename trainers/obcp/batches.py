"""One rank's batches of ObCP: views, what is known of each row, and what each row counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers import randomness
from trainers.data.augment import Recipe
from trainers.data.items import Items, StageData, to_device
from trainers.data.sampler import Epoch
from trainers.distributed.ranks import Ranks
from trainers.errors import DataError
from trainers.negatives import Negatives
from trainers.obcp.memory import LabelledFeatures, last_of_each
from trainers.obcp.settings import ObcpConfig
from trainers.stage import Ids, StageInputs

_PLAIN_VIEW, _QUERY_VIEW, _KEY_VIEW = 11, 12, 13
_PARTNER, _CLASS = 31, 32

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's rows of one step, on the device; b rows, those without a label first. B: rows of
    all ranks, of which l have a label. A weight is the number of ranks over the number of rows of
    its kind in the whole batch, so that the mean over ranks of weighted sums is the mean over rows.
    """

    views: Tensor
    """[2b, ...] the data's own view of each row, then one for contrast."""
    key_view: Tensor
    """[b, ...] another one for contrast."""
    ids: Tensor
    """int64 [b]"""
    visits: Tensor
    """int64 [b]"""
    labels: Tensor
    """int64 [b_l] of the last b_l rows."""
    class_weights: Tensor
    """[b_l] of the cross entropy."""
    contrast_weights: Tensor
    """[b]"""
    partners: Tensor | None
    """int64 [b_l] row of another labelled image of its class among the labelled features; the last
    row where there is none. None before the first question.
    """
    negative_rows: Tensor
    """int64 [M] of the rows without a label."""
    negative_classes: Tensor
    """int64 [M]"""
    negative_weight: float
    refused_rows: Tensor
    """int64 [r] rows without a label and with a refused class, each once."""
    refused_classes: Tensor
    """int64 [r] one of the refused classes of each, at random."""
    all_ids: Tensor
    """int64 [B] of the whole batch, those without a label first."""
    order: Tensor
    """int64 [B] where each of them is among the rows of rank 0, then of rank 1, and so on."""
    labelled_rows: Tensor | None
    """int64 [l] rows of the last l of them among the labelled features; the last row for all but
    the last of an image that is there twice. None before the first question.
    """


class Batches:
    """Makes the batches of a stage."""

    def __init__(
        self,
        config: ObcpConfig,
        inputs: StageInputs,
        items: Items,
        negatives: Negatives,
        ranks: Ranks,
    ) -> None:
        self._config, self._items, self._negatives, self._ranks = config, items, negatives, ranks
        self._label_of = np.full(len(items), -1, np.int64)
        self._label_of[inputs.label_ids] = inputs.labels
        rows, _ = negatives.pairs(inputs.pool_ids)
        self._is_refused = np.zeros(len(items), np.bool_)
        self._is_refused[inputs.pool_ids[np.unique(rows)]] = True
        self._is_refused[inputs.label_ids] = False
        self._counts = np.ones(len(items), np.bool_)
        """[N] whether an image's label counts in the cross entropy."""
        self._recipe = contrast_recipe(config, items.recipe, items.images)

    def count_labels_of(self, ids: Ids) -> None:
        """From the first question on, only labels of these images count in the cross entropy."""
        self._counts[:] = False
        self._counts[ids] = True

    def of(
        self,
        number: int,
        epoch: Epoch,
        seed: int,
        *,
        labelled: LabelledFeatures | None,
    ) -> Iterator[Batch]:
        """Yields this rank's batches, views made for many steps at once.

        Args:
            labelled: keys of labelled images; None before the first question, when answers and
                classes have no part in the contrast yet.
        """
        device, ranks = self._items.device, self._ranks
        mine = epoch.share(ranks.rank, ranks.world_size)
        streams = {
            purpose: randomness.key(seed, purpose, number)
            for purpose in (_PLAIN_VIEW, _QUERY_VIEW, _KEY_VIEW, _PARTNER, _CLASS)
        }
        rows, at_once = mine.batch_size, max(self._items.at_once // (3 * mine.batch_size), 1)
        known = self._known(epoch, mine, streams, labelled)
        starts = range(0, mine.steps, at_once)
        parts = [mine.ids[start : start + at_once].reshape(-1) for start in starts]
        for start, stored in zip(starts, self._items.rows(parts), strict=True):
            chunk = slice(start, min(start + at_once, mine.steps))
            ids, visits = (to_device(a[chunk].reshape(-1), device) for a in (mine.ids, mine.visits))
            plain, query, key = (
                _by_batch(self._items.view(stored, ids, visits, streams[purpose], recipe), rows)
                for purpose, recipe in (
                    (_PLAIN_VIEW, None),
                    (_QUERY_VIEW, self._recipe),
                    (_KEY_VIEW, self._recipe),
                )
            )
            for at, step in enumerate(range(chunk.start, chunk.stop)):
                yield known.step(step, torch.cat([plain[at], query[at]]), key[at])

    def _known(
        self,
        epoch: Epoch,
        mine: Epoch,
        streams: dict[int, int],
        labelled: LabelledFeatures | None,
    ) -> _Known:
        """What is known of the rows of an epoch, without their views."""
        asked = labelled is not None
        world, cut, own_cut = self._ranks.world_size, epoch.unlabelled, mine.unlabelled
        is_refused = self._is_refused if asked else np.zeros_like(self._is_refused)
        counted = self._counts if asked else np.ones_like(self._counts)
        refused = is_refused[epoch.ids[:, :cut]].sum(1)
        labels = counted[epoch.ids[:, cut:]].sum(1)
        contrast = np.full(mine.ids.shape, world / epoch.batch_size)
        if asked:
            contrast[:, :own_cut] = np.where(
                is_refused[mine.ids[:, :own_cut]],
                _share(world, refused),
                _share(world, cut - refused),
            )
            contrast[:, own_cut:] = world / max(epoch.batch_size - cut, 1)
        columns = np.arange(epoch.batch_size)[None]
        placed = Epoch(ids=columns, visits=columns, unlabelled=cut)
        dealt = [placed.share(rank, world).ids[0] for rank in range(world)]
        negatives, one_each = self._refusals(mine, is_refused, streams[_CLASS])
        device, dtype = self._items.device, self._items.dtype
        label_ids, label_visits = (a[:, own_cut:] for a in (mine.ids, mine.visits))
        weights = counted[label_ids] * _share(world, labels)
        partners = rows = None
        if labelled is not None:
            partners = to_device(
                labelled.others(label_ids, label_visits, streams[_PARTNER]), device
            )
            rows = to_device(
                last_of_each(labelled.row_of[epoch.ids[:, cut:]], len(labelled.ids)), device
            )
        return _Known(
            negatives=negatives,
            refused=one_each,
            negative_weights=_share(world, refused)[:, 0].tolist(),
            ids=to_device(mine.ids, device),
            visits=to_device(mine.visits, device),
            labels=to_device(self._label_of[label_ids], device),
            class_weights=to_device(weights, device).to(dtype),
            contrast_weights=to_device(contrast, device).to(dtype),
            partners=partners,
            all_ids=to_device(epoch.ids, device),
            order=to_device(np.argsort(np.concatenate(dealt)), device),
            labelled_rows=rows,
        )

    def _refusals(
        self, mine: Epoch, is_refused: npt.NDArray[np.bool_], stream: int
    ) -> tuple[_Pairs, _Pairs]:
        """Every refused class of the rows without a label, and of each such row one at random."""
        flat, visits, device = mine.ids.reshape(-1), mine.visits.reshape(-1), self._items.device
        rows, classes = self._negatives.pairs(flat)
        keep = is_refused[flat[rows]]
        rows, classes = rows[keep], classes[keep]
        each, first, held = np.unique(rows, return_index=True, return_counts=True)
        bits = randomness.draws(
            stream, torch.from_numpy(flat[each]), torch.from_numpy(visits[each]), 1
        )
        drawn = randomness.integers(bits[:, 0], torch.from_numpy(held)).numpy()
        return (
            _Pairs.of(rows, classes, mine, device),
            _Pairs.of(each, classes[first + drawn], mine, device),
        )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """(row, class) of an epoch, rows ascending and counted within each step, on the device."""

    rows: Tensor
    classes: Tensor
    cuts: list[int]
    """[steps + 1] where each step begins."""

    @classmethod
    def of(cls, rows: Ids, classes: Ids, mine: Epoch, device: torch.device) -> _Pairs:
        cuts = np.searchsorted(rows, np.arange(mine.steps + 1) * mine.batch_size)
        within, of_each = (to_device(a, device) for a in (rows % mine.batch_size, classes))
        return cls(within, of_each, cuts.tolist())

    def step(self, step: int) -> tuple[Tensor, Tensor]:
        part = slice(self.cuts[step], self.cuts[step + 1])
        return self.rows[part], self.classes[part]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """An epoch's rows on this rank, without their views; tensors [steps, ...] on the device."""

    negatives: _Pairs
    refused: _Pairs
    negative_weights: list[float]
    ids: Tensor
    visits: Tensor
    labels: Tensor
    class_weights: Tensor
    contrast_weights: Tensor
    partners: Tensor | None
    all_ids: Tensor
    order: Tensor
    labelled_rows: Tensor | None

    def step(self, step: int, views: Tensor, key_view: Tensor) -> Batch:
        """The batch of a step."""
        negative_rows, negative_classes = self.negatives.step(step)
        refused_rows, refused_classes = self.refused.step(step)
        return Batch(
            views=views,
            key_view=key_view,
            ids=self.ids[step],
            visits=self.visits[step],
            labels=self.labels[step],
            class_weights=self.class_weights[step],
            contrast_weights=self.contrast_weights[step],
            partners=None if self.partners is None else self.partners[step],
            negative_rows=negative_rows,
            negative_classes=negative_classes,
            negative_weight=self.negative_weights[step],
            refused_rows=refused_rows,
            refused_classes=refused_classes,
            all_ids=self.all_ids[step],
            order=self.order,
            labelled_rows=None if self.labelled_rows is None else self.labelled_rows[step],
        )


def _by_batch(values: Tensor, rows: int) -> Tensor:
    return values.view(-1, rows, *values.shape[1:])


def _share(world: int, rows: npt.NDArray[np.int64]) -> Weights:
    """Returns world / rows of each step, [steps, 1]; 0 where there are none."""
    counts = np.asarray(rows, np.float64)
    return np.divide(world, counts, out=np.zeros_like(counts), where=counts > 0)[:, None]


def contrast_recipe(config: ObcpConfig, own: Recipe, images: bool) -> Recipe | None:
    """Returns how a view for contrast is made: that of He et al. 2020, mirrored where the data's
    own views are; None for features.
    """
    if not images:
        return None
    return Recipe(
        flip=own.flip,
        resized_crop=config.crop_area < 1,
        crop_area=(config.crop_area, 1.0),
        shift=0 if config.crop_area < 1 else own.shift,
        greyscale=config.greyscale,
        jitter=(config.jitter,) * 4,
    )


def check_inputs(config: ObcpConfig, inputs: StageInputs, data: StageData, ranks: Ranks) -> None:
    """Raises DataError where an image has several classes, or ranks cannot share a batch."""
    if (np.diff(inputs.label_ids) == 0).any() or inputs.validation_labels.ndim != 1:
        raise DataError(
            f"{data.folder}: method obcp trains images of one class each, and some have several;"
            " choose a method for images of several classes"
        )
    if config.batch_size % ranks.world_size or config.batch_size < 2 * ranks.world_size:
        raise DataError(
            f"method.batch_size: {config.batch_size} images cannot be shared equally by"
            f" {ranks.world_size} workers; write a multiple of their number, at least two each"
        )
