"""Two-stream batches: which images each step sees, as a function of (inputs, seed, epoch)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainers import randomness
from trainers.stage import Ids

_UNLABELLED, _LABELLED = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The batches of one epoch, unlabelled rows first in each."""

    ids: Ids
    """[steps, B]."""
    visits: Ids
    """[steps, B] how many earlier passes over its stream had seen this image; part of the key of
    its augmentation.
    """
    unlabelled: int
    """B - B_l: rows of a batch that are images without a label."""

    @property
    def steps(self) -> int:
        return int(self.ids.shape[0])

    @property
    def batch_size(self) -> int:
        return int(self.ids.shape[1])

    def share(self, rank: int, world_size: int) -> Epoch:
        """This rank's rows of every batch: every world_size-th of each stream, so that shares
        differ by one row of a stream at most.

        The labelled stream is dealt from the last rank, which evens out the remainders. Together
        the ranks hold each row of the whole batch once.
        """
        first, last = (
            slice(rank, self.unlabelled, world_size),
            slice(self.unlabelled + world_size - 1 - rank, None, world_size),
        )
        return Epoch(
            ids=np.concatenate([self.ids[:, first], self.ids[:, last]], axis=1),
            visits=np.concatenate([self.visits[:, first], self.visits[:, last]], axis=1),
            unlabelled=len(range(self.unlabelled)[first]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStreamSampler:
    """Batches of B images, B_l of them labelled; an epoch is one shuffled pass over the images
    without a label, the rest of the division dropped.

    The labelled stream never ends: it is one reshuffle after the other, across epochs, so that
    visit counts never differ by more than one. A stream too short for its part of one batch is
    repeated in the same manner. With no image left without a label, batches are all labelled and an
    epoch is a pass over the labelled; with no label, all unlabelled. Source: Tarvainen & Valpola
    2017, published code; what it leaves open is ours.
    """

    unlabelled_ids: Ids
    labelled_ids: Ids
    batch_size: int
    labelled_share: float | None
    """None: |labelled| / N + 0.05."""
    seed: int
    labelled_rows: int | None = None
    """B_l itself, instead of a share."""

    @property
    def labelled_per_batch(self) -> int:
        """B_l: the share of B, rounded, at least 1 and at most B - 1 where both streams have
        images.
        """
        labelled, unlabelled = len(self.labelled_ids), len(self.unlabelled_ids)
        if unlabelled == 0 or labelled == 0:
            return self.batch_size if labelled else 0
        share = (
            labelled / (labelled + unlabelled) + 0.05
            if self.labelled_share is None
            else self.labelled_share
        )
        rows = round(self.batch_size * share) if self.labelled_rows is None else self.labelled_rows
        return min(max(rows, 1), self.batch_size - 1)

    @property
    def steps(self) -> int:
        """Steps of an epoch; the same for every epoch."""
        unlabelled_rows = self.batch_size - self.labelled_per_batch
        if unlabelled_rows == 0:
            return max(len(self.labelled_ids) // self.batch_size, 1)
        return max(len(self.unlabelled_ids) // unlabelled_rows, 1)

    def epoch(self, number: int) -> Epoch:
        """The batches of this epoch, counted from 0."""
        labelled = self.labelled_per_batch
        unlabelled = self.batch_size - labelled
        first, first_visits = _stream(
            self.unlabelled_ids,
            randomness.key(self.seed, _UNLABELLED, number),
            0,
            self.steps * unlabelled,
        )
        start = number * self.steps * labelled
        second, second_visits = _stream(
            self.labelled_ids, randomness.key(self.seed, _LABELLED), start, self.steps * labelled
        )
        return Epoch(
            ids=np.concatenate(
                [first.reshape(self.steps, unlabelled), second.reshape(self.steps, labelled)],
                axis=1,
            ),
            visits=np.concatenate(
                [
                    first_visits.reshape(self.steps, unlabelled),
                    second_visits.reshape(self.steps, labelled),
                ],
                axis=1,
            ),
            unlabelled=unlabelled,
        )


def _stream(ids: Ids, stream: int, start: int, count: int) -> tuple[Ids, Ids]:
    """Entries start .. start + count of the endless stream of reshuffles of `ids`, and the number
    of the reshuffle each is from.
    """
    if count == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    passes = range(start // len(ids), (start + count - 1) // len(ids) + 1)
    entries = np.concatenate(
        [randomness.shuffled(ids, randomness.key(stream, number)) for number in passes]
    )
    visits = np.repeat(np.asarray(passes, np.int64), len(ids))
    skip = start - passes[0] * len(ids)
    return entries[skip : skip + count], visits[skip : skip + count]
