"""Augmented views, made in batch where the data is; each image's draw is a function of (stream, id, visit) and of nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import randomness


def shift_and_flip(images: Tensor, ids: Tensor, visits: Tensor, stream: int, *, shift: int, flip: bool) -> Tensor:
    """Each image moved by whole pixels, uniform in [-shift, shift] along each axis, edges filled by reflection; mirrored half of the time if `flip`.

    Equal to padding by reflection (the edge not repeated) and a random crop of the old size.

    Args:
        images: [n, H, W, C], any dtype.
        ids, visits: int64 [n], the key of each image's draw.
    """
    if shift == 0 and not flip:
        return images
    n, height, width, channels = images.shape
    bits = randomness.draws(stream, ids, visits, 3)
    rows = _reflected(torch.arange(height, device=images.device) + (randomness.integers(bits[:, 0:1], 2 * shift + 1) - shift), height)
    columns = _reflected(torch.arange(width, device=images.device) + (randomness.integers(bits[:, 1:2], 2 * shift + 1) - shift), width)
    if flip:
        columns = torch.where(randomness.integers(bits[:, 2:3], 2) == 1, width - 1 - columns, columns)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(n, height * width, 1)
    moved = images.reshape(n, height * width, channels).gather(1, pixels.expand(n, height * width, channels))
    return moved.view(n, height, width, channels)


def noise(ids: Tensor, visits: Tensor, stream: int, width: int) -> Tensor:
    """Standard normal float32 [n, width], row by row a function of (stream, id, visit)."""
    return randomness.normals(randomness.draws(stream, ids, visits, width))


def _reflected(index: Tensor, size: int) -> Tensor:
    # -1 -> 1 and size -> size - 2: the edge itself is not repeated. Shifts are smaller than the image.
    index = index.abs()
    return (size - 1) - ((size - 1) - index).abs()
