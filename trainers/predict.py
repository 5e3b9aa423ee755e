"""What a trained teacher says of images: in eval mode, not augmented, in full precision, by its
class head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.data.items import Items, to_device
from trainers.distributed.ranks import Ranks
from trainers.negatives import Negatives, suppress_negatives
from trainers.networks.backbones import TwoHeads
from trainers.stage import Classes, Ids


@torch.inference_mode()
def judge(
    net: TwoHeads,
    items: Items,
    ids: Ids,
    names: Sequence[str],
    ranks: Ranks,
    negatives: Negatives | None = None,
    *,
    several: bool = False,
) -> dict[str, npt.NDArray[np.generic]]:
    """These arrays (trainers.stage.POOL_ARRAYS, `probabilities`, `embedding`) of the items with
    these ascending ids. Without `negatives` no class is left out. Ranks split the work and get the
    same arrays.

    Args:
        several: an image may be of several classes: each has a probability of its own, the sigmoid
            of its logit. Of POOL_ARRAYS, which are about one class an image, none then.
    """
    tables = [_SIGMOID if several and table is _SOFTMAX else table for table in _tables(names)]
    return _by_name(names, tables, _by_rank(net, items, ids, tables, negatives, ranks))


@torch.inference_mode()
def arrays(
    names: Sequence[str],
    logits: Tensor,
    *,
    features: Tensor | None = None,
    refused: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
) -> dict[str, npt.NDArray[np.generic]]:
    """These arrays of images of which a network says `logits`, for a method that predicts by
    itself.

    Args:
        logits: finite [n, C]; a softmax makes probabilities of them.
        features: [n, D], where `embedding` is among the names.
        refused: (row, class) of the classes to leave out (Negatives.pairs); None: none.
    """
    pairs = None if refused is None else tuple(to_device(a, logits.device) for a in refused)
    empty = logits.new_zeros((len(logits), 0))
    logits = logits.double()
    # Probabilities are the same, and none is as far down as a refused class is put.
    logits = (logits - logits.amax(1, keepdim=True)).clamp(min=-1e5)
    said = _Said(empty if features is None else features, logits, pairs)  # type: ignore[arg-type]
    tables = _tables(names)
    return _by_name(names, tables, [table.made(said).cpu().numpy() for table in tables])


def _by_name(
    names: Sequence[str], tables: Sequence[_Table], rows: Sequence[npt.NDArray[Any]]
) -> dict[str, npt.NDArray[np.generic]]:
    found: dict[str, npt.NDArray[np.generic]] = {}
    for table, values in zip(tables, rows, strict=True):
        for name in set(table.names) & set(names):
            column = values if table.whole else values[:, table.names.index(name)]
            kind = np.int32 if name.endswith("guess") else np.float32
            found[name] = column.astype(kind, copy=False)
    return {name: found[name] for name in names}


def guesses(net: TwoHeads, items: Items, ranks: Ranks, ids: Ids | None = None) -> Classes:
    """Best class of every item, or of those with these ascending ids, int32 [n], no class left
    out.
    """
    ids = np.arange(len(items)) if ids is None else ids
    found: Classes = judge(net, items, ids, ("raw_guess",), ranks)["raw_guess"].astype(np.int32)
    return found


@dataclass(frozen=True, slots=True)
class _Said:
    """What the net says of some items, on the device."""

    features: Tensor
    """[n, width]"""
    logits: Tensor
    """float64 [n, C]"""
    negatives: tuple[Tensor, Tensor] | None
    """(row, class) of their refusals."""

    def raw(self) -> Tensor:
        return torch.softmax(self.logits, 1)

    def masked(self) -> Tensor:
        if self.negatives is None:
            return self.raw()
        return torch.softmax(suppress_negatives(self.logits, *self.negatives), 1)


@dataclass(frozen=True, slots=True)
class _Table:
    """Arrays that are made together: a column each, or one that is all columns."""

    names: tuple[str, ...]
    made: Callable[[_Said], Tensor]
    whole: bool = False


_SUMMARY: Final = ("guess", "confidence", "margin", "entropy")
_SOFTMAX: Final = _Table(("probabilities",), lambda said: said.raw().float(), whole=True)
_SIGMOID: Final = _Table(
    ("probabilities",), lambda said: torch.sigmoid(said.logits).float(), whole=True
)
_WHOLE: Final = (
    _SOFTMAX,
    _Table(("embedding",), lambda said: said.features.float(), whole=True),
)


def _tables(names: Sequence[str]) -> list[_Table]:
    """What must be made for these arrays; a guess alone is made without the rest of its table."""
    found: list[_Table] = []
    for prefix, probabilities in (("", _Said.masked), ("raw_", _Said.raw)):
        mine = [name for name in _SUMMARY if f"{prefix}{name}" in names]
        if mine == ["guess"]:
            found.append(_Table((f"{prefix}guess",), partial(_best, probabilities)))
        elif mine:
            every = tuple(f"{prefix}{name}" for name in _SUMMARY)
            found.append(_Table(every, partial(_summarised, probabilities)))
    return [*found, *(table for table in _WHOLE if table.names[0] in names)]


def _best(probabilities: Callable[[_Said], Tensor], said: _Said) -> Tensor:
    return probabilities(said).argmax(1, keepdim=True)


def _summarised(probabilities: Callable[[_Said], Tensor], said: _Said) -> Tensor:
    return _summary(probabilities(said))


def _by_rank(
    net: TwoHeads,
    items: Items,
    ids: Ids,
    tables: Sequence[_Table],
    negatives: Negatives | None,
    ranks: Ranks,
) -> list[npt.NDArray[Any]]:
    """Each table's rows for the ids, ascending. Each rank predicts every world_size-th; the last
    share is filled up with repeats that are dropped by id.
    """
    if len(ids) == 0:
        # Their width is that of any item.
        return [
            rows[:0] for rows in _by_rank(net, items, np.zeros(1, np.int64), tables, None, ranks)
        ]
    padded = np.resize(ids, -(-len(ids) // ranks.world_size) * ranks.world_size)
    mine = padded[ranks.rank :: ranks.world_size]
    parts = [mine[part] for part in _parts(items, len(mine))]
    said = _said(net, items, parts, negatives)
    # Alone there is nobody to gather from, and large arrays need not stay on the device.
    alone = ranks.world_size == 1
    made = [
        [table.made(part).cpu() if alone and table.whole else table.made(part) for table in tables]
        for part in said
    ]
    rows = [
        ranks.gather_rows(torch.cat(column)).cpu().numpy() for column in zip(*made, strict=True)
    ]
    everyone = np.concatenate(
        [padded[rank :: ranks.world_size] for rank in range(ranks.world_size)]
    )
    unique, first = np.unique(everyone, return_index=True)
    if not np.array_equal(unique, ids):
        raise ValueError("ids must be ascending and distinct")
    return [np.asarray(table[first]) for table in rows]


def _parts(items: Items, count: int) -> list[slice]:
    size = items.at_once
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _said(
    net: TwoHeads, items: Items, parts: Sequence[Ids], negatives: Negatives | None
) -> Iterator[_Said]:
    for part, rows in zip(parts, items.rows(parts), strict=True):
        features: Tensor = net.trunk(items.plain(rows))
        logits: Tensor = net.class_head(features).double()
        refused = None
        if negatives is not None:
            at, classes = (to_device(a, logits.device) for a in negatives.pairs(part))
            refused = at, classes
        yield _Said(features, logits, refused)


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
