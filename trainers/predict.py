"""What a trained teacher says of images: in eval mode, not augmented, in full precision, by its
class head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.data.items import Items, to_device
from trainers.distributed.ranks import Ranks
from trainers.mean_teacher.losses import suppress_negatives
from trainers.mean_teacher.negatives import Negatives
from trainers.networks.backbones import TwoHeads
from trainers.stage import Classes, Ids


@torch.inference_mode()
def top1(net: TwoHeads, items: Items, ids: Ids, labels: Classes, ranks: Ranks) -> float | None:
    """Share of these images that the net gets right, percent; None where there are none. Ranks
    split the work and get the same number.
    """
    if len(ids) == 0:
        return None
    mine, truth = ids[ranks.rank :: ranks.world_size], labels[ranks.rank :: ranks.world_size]
    right = torch.zeros((), dtype=torch.int64, device=items.device)
    parts = _parts(items, len(mine))
    for part, logits in zip(
        parts, _logits(net, items, [mine[part] for part in parts]), strict=True
    ):
        right += (logits.argmax(1) == to_device(truth[part], items.device)).sum()
    return 100.0 * int(ranks.sum(right)) / len(ids)


@torch.inference_mode()
def guesses(net: TwoHeads, items: Items, ranks: Ranks, ids: Ids | None = None) -> Classes:
    """Best class of every item, or of those with these ascending ids, int32 [n], no class left
    out.
    """
    columns = _by_rank(net, items, np.arange(len(items)) if ids is None else ids, None, ranks)
    return columns[:, 4].astype(np.int32)


@torch.inference_mode()
def pool_scores(
    net: TwoHeads, items: Items, ids: Ids, negatives: Negatives, ranks: Ranks
) -> dict[str, npt.NDArray[np.generic]]:
    """The pool's arrays of trainers.stage.SCORE_ARRAYS for these ids, ascending. Ranks split the
    work and get the same arrays.
    """
    columns = _by_rank(net, items, ids, negatives, ranks)
    return {
        "item_ids": ids,
        "guess": columns[:, 0].astype(np.int32),
        "confidence": columns[:, 1].astype(np.float32),
        "margin": columns[:, 2].astype(np.float32),
        "entropy": columns[:, 3].astype(np.float32),
        "raw_guess": columns[:, 4].astype(np.int32),
        "raw_confidence": columns[:, 5].astype(np.float32),
        "raw_margin": columns[:, 6].astype(np.float32),
        "raw_entropy": columns[:, 7].astype(np.float32),
    }


def _by_rank(
    net: TwoHeads, items: Items, ids: Ids, negatives: Negatives | None, ranks: Ranks
) -> npt.NDArray[np.float64]:
    """Columns of `_columns` for the ids, ascending. Each rank predicts every world_size-th; the
    last share is filled up with repeats that are dropped by id.
    """
    if len(ids) == 0:
        return np.zeros((0, 8))
    padded = np.resize(ids, -(-len(ids) // ranks.world_size) * ranks.world_size)
    mine = padded[ranks.rank :: ranks.world_size]
    parts = [mine[part] for part in _parts(items, len(mine))]
    columns = [
        _columns(logits, part, negatives)
        for part, logits in zip(parts, _logits(net, items, parts), strict=True)
    ]
    rows = ranks.gather_rows(torch.cat(columns)).cpu().numpy()
    everyone = np.concatenate(
        [padded[rank :: ranks.world_size] for rank in range(ranks.world_size)]
    )
    found, first = np.unique(everyone, return_index=True)
    if not np.array_equal(found, ids):
        raise ValueError("ids must be ascending and distinct")
    return np.asarray(rows[first])


def _parts(items: Items, count: int) -> list[slice]:
    size = items.at_once
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _logits(net: TwoHeads, items: Items, parts: Sequence[Ids]) -> Iterator[Tensor]:
    """float64 [n, C] of each part."""
    for rows in items.rows(parts):
        logits: Tensor = net(items.plain(rows))[0]
        yield logits.double()


def _columns(logits: Tensor, ids: Ids, negatives: Negatives | None) -> Tensor:
    """[n, 8]: guess, confidence, margin and entropy without the refused classes; the same of all
    classes.
    """
    raw = torch.softmax(logits, 1)
    masked = raw
    if negatives is not None:
        rows, classes = (to_device(a, logits.device) for a in negatives.pairs(ids))
        masked = torch.softmax(suppress_negatives(logits, rows, classes), 1)
    return torch.cat([_summary(masked), _summary(raw)], 1)


def _summary(probabilities: Tensor) -> Tensor:
    """[n, 4]: best class, its probability, how far it is ahead of the second, entropy."""
    best = probabilities.topk(2, 1).values
    # argmax, not the index of topk or max: it is the first of equals on every device.
    return torch.stack(
        [
            probabilities.argmax(1).double(),
            best[:, 0],
            best[:, 0] - best[:, 1],
            torch.special.entr(probabilities).sum(1),
        ],
        1,
    )
