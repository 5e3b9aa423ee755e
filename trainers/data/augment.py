"""Augmented views, made in batch where the data is; each image's draw is a function of (stream, id,
visit) and of nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from trainers import randomness

CROP_AREA: Final = (0.08, 1.0)
CROP_RATIO: Final = (3 / 4, 4 / 3)
_TRIES = 10
"""Random resized crops as torchvision makes them: area, where a recipe names no other, and aspect
ratio of the part that is kept, and how often a part that does not fit is drawn again.
"""

# Columns of an image's random bits.
_DOWN, _RIGHT, _MIRROR, _ANGLE, _JITTER = 0, 1, 2, 3, 4
_AREA = _JITTER + 4
_RATIO = _AREA + _TRIES
_GREY = _RATIO + _TRIES
_COLUMNS = _GREY + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a training view is made of an image; the defaults leave the image alone."""

    shift: int = 0
    """Largest shift along each axis, pixels."""
    flip: bool = False
    """Mirrored left to right half of the time."""
    rotation: float = 0.0
    """Largest rotation about the centre, degrees. With it, what comes in from outside the image is
    black; without, it is the reflection.
    """
    resized_crop: bool = False
    """A random part (CROP_AREA, CROP_RATIO) is stretched to the size of the view."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Largest change of brightness, contrast, saturation (each a factor of 1 +- this) and hue (a
    share of the colour circle); of images of one channel the first two count.
    """
    crop_area: tuple[float, float] = CROP_AREA
    """Least and largest share of the image's area that `resized_crop` keeps."""
    greyscale: float = 0.0
    """Chance that a view loses its colours, before the jitter."""

    @property
    def only_moves(self) -> bool:
        """Whether a view is the image's own pixels, moved by whole steps."""
        return not (self.rotation or self.resized_crop or any(self.jitter) or self.greyscale)


def view(
    images: Tensor, ids: Tensor, visits: Tensor, stream: int, recipe: Recipe, size: tuple[int, int]
) -> Tensor:
    """One view of each image, [n, *size, C] on the scale 0..255: uint8 where the recipe only moves
    pixels, else float32.

    Args:
        images: uint8 [n, H, W, C].
        ids, visits: int64 [n], the key of each image's draw.
    """
    if recipe.only_moves:
        return _moved(images, ids, visits, stream, recipe, size)
    bits = randomness.draws(stream, ids, visits, _COLUMNS)
    moved = (
        _warp(images, bits, recipe, size)
        if recipe.rotation or recipe.resized_crop
        else _moved(images, ids, visits, stream, recipe, size).float()
    )
    if recipe.greyscale:
        loses = randomness.uniforms(bits[:, _GREY]) < recipe.greyscale
        moved = torch.where(loses.view(-1, 1, 1, 1), grey(moved), moved)
    return _jitter(moved, bits, recipe) if any(recipe.jitter) else moved


def _moved(
    images: Tensor, ids: Tensor, visits: Tensor, stream: int, recipe: Recipe, size: tuple[int, int]
) -> Tensor:
    return centre(
        shift_and_flip(images, ids, visits, stream, shift=recipe.shift, flip=recipe.flip), size
    )


def centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle [n, *size, C] of images [n, H, W, C], as torchvision's CenterCrop cuts it."""
    down, right = (
        round((have - want) / 2) for have, want in zip(images.shape[1:3], size, strict=True)
    )
    return images[:, down : down + size[0], right : right + size[1]]


def shift_and_flip(
    images: Tensor, ids: Tensor, visits: Tensor, stream: int, *, shift: int, flip: bool
) -> Tensor:
    """Each image moved by whole pixels, uniform in [-shift, shift] along each axis, edges filled by
    reflection; mirrored half of the time if `flip`.

    Equal to padding by reflection (the edge not repeated) and a random crop of the old size.

    Args:
        images: [n, H, W, C], any dtype.
        ids, visits: int64 [n], the key of each image's draw.
    """
    if shift == 0 and not flip:
        return images
    n, height, width, channels = images.shape
    bits = randomness.draws(stream, ids, visits, 3)
    rows = _reflected(
        torch.arange(height, device=images.device)
        + (randomness.integers(bits[:, 0:1], 2 * shift + 1) - shift),
        height,
    )
    columns = _reflected(
        torch.arange(width, device=images.device)
        + (randomness.integers(bits[:, 1:2], 2 * shift + 1) - shift),
        width,
    )
    if flip:
        columns = torch.where(
            randomness.integers(bits[:, 2:3], 2) == 1, width - 1 - columns, columns
        )
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(n, height * width, 1)
    moved = images.reshape(n, height * width, channels).gather(
        1, pixels.expand(n, height * width, channels)
    )
    return moved.view(n, height, width, channels)


def noise(ids: Tensor, visits: Tensor, stream: int, width: int) -> Tensor:
    """Standard normal float32 [n, width], row by row a function of (stream, id, visit)."""
    return randomness.normals(randomness.draws(stream, ids, visits, width))


def _reflected(index: Tensor, size: int) -> Tensor:
    # -1 -> 1 and size -> size - 2: the edge itself is not repeated. Shifts are smaller than the
    # image.
    index = index.abs()
    return (size - 1) - ((size - 1) - index).abs()


def _warp(images: Tensor, bits: Tensor, recipe: Recipe, size: tuple[int, int]) -> Tensor:
    """Rotated, then cropped or shifted, then mirrored: one bilinear look-up a pixel, float32 [n,
    *size, C].
    """
    height, width = images.shape[1:3]
    if recipe.resized_crop:
        top, left, tall, wide = random_part(bits, height, width, recipe.crop_area)
    else:
        top, left = (
            (have - want) / 2
            + (randomness.integers(bits[:, column], 2 * recipe.shift + 1) - recipe.shift)
            for have, want, column in ((height, size[0], _DOWN), (width, size[1], _RIGHT))
        )
        tall, wide = torch.full_like(top, size[0]), torch.full_like(left, size[1])
    # Places of the view's pixel centres in the rotated image, in pixels from its centre.
    down = top[:, None] + (torch.arange(size[0], device=images.device) + 0.5) * (
        tall[:, None] / size[0]
    )
    across = torch.arange(size[1], device=images.device) + 0.5
    if recipe.flip:
        across = torch.where(
            randomness.integers(bits[:, _MIRROR, None], 2) == 1, size[1] - across, across
        )
    across = left[:, None] + across * (wide[:, None] / size[1])
    if recipe.resized_crop:
        # A part is stretched by itself: nothing from beyond its outermost pixels comes in.
        down = torch.minimum(torch.maximum(down, top[:, None] + 0.5), (top + tall)[:, None] - 0.5)
        across = torch.minimum(
            torch.maximum(across, left[:, None] + 0.5), (left + wide)[:, None] - 0.5
        )
    down, across = down - height / 2, across - width / 2
    angle = (2 * randomness.uniforms(bits[:, _ANGLE]) - 1) * math.radians(recipe.rotation)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    down, across = down[:, :, None], across[:, None, :]
    x, y = cos * across - sin * down, sin * across + cos * down
    places = torch.stack([x * (2 / width), y * (2 / height)], 3)
    warped = functional.grid_sample(
        images.permute(0, 3, 1, 2).float(),
        places,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return warped.permute(0, 2, 3, 1).contiguous()


def random_part(
    bits: Tensor, height: int, width: int, shares: tuple[float, float] = CROP_AREA
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(top, left, height, width) of a random part of an image, float32 [n] whole pixels: the first
    of ten draws that fits, else the largest in the middle.

    As torchvision's RandomResizedCrop draws it (Szegedy et al. 2015, arXiv:1409.4842).

    Args:
        shares: least and largest share of the image's area.
    """
    low, high = shares
    area = (
        height * width * (low + (high - low) * randomness.uniforms(bits[:, _AREA : _AREA + _TRIES]))
    )
    narrow, broad = (math.log(ratio) for ratio in CROP_RATIO)
    ratio = (
        narrow + (broad - narrow) * randomness.uniforms(bits[:, _RATIO : _RATIO + _TRIES])
    ).exp()
    wide, tall = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.int().argmax(1, keepdim=True)
    some = fits.any(1)
    wide = torch.where(some, wide.gather(1, first)[:, 0], min(width, round(height * CROP_RATIO[1])))
    tall = torch.where(some, tall.gather(1, first)[:, 0], min(height, round(width / CROP_RATIO[0])))
    top, left = (
        torch.where(
            some, randomness.integers(bits[:, column], (have - part).long() + 1), (have - part) // 2
        )
        for have, part, column in ((height, tall, _DOWN), (width, wide, _RIGHT))
    )
    return top.float(), left.float(), tall.float(), wide.float()


def _jitter(images: Tensor, bits: Tensor, recipe: Recipe) -> Tensor:
    """Brightness, contrast, saturation and hue changed, in this order, by each image's own draw.
    Float [n, H, W, 3 or 1], 0..255.

    Torchvision's ColorJitter draws the order as well, which in batch would cost every image every
    order.
    """
    draws = 2 * randomness.uniforms(bits[:, _JITTER : _JITTER + 4]) - 1
    brightness, contrast, saturation, hue = (
        draws[:, k].view(-1, 1, 1, 1) * largest for k, largest in enumerate(recipe.jitter)
    )
    images = (images * (1 + brightness)).clamp_(0, 255)
    images = _blend(images, grey(images).mean((1, 2, 3), keepdim=True), 1 + contrast)
    images = _blend(images, grey(images), 1 + saturation)
    return turn_hue(images, hue) if recipe.jitter[3] and images.shape[3] == 3 else images


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(images), images, factor).clamp_(0, 255)


def grey(images: Tensor) -> Tensor:
    """Luma [n, H, W, 1] of RGB (ITU-R BT.601); images of one channel as they are."""
    if images.shape[-1] == 1:
        return images
    # Numbers, not a tensor of them, which a GPU would have to wait for.
    return 0.2989 * images[..., 0:1] + 0.587 * images[..., 1:2] + 0.114 * images[..., 2:3]


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """RGB [n, H, W, 3] with every colour's hue moved by `turn` of the circle, its value and
    saturation kept (Smith 1978).
    """
    value = images.amax(3)
    chroma = value - images.amin(3)
    red, green, blue = images.unbind(3)
    grain = torch.where(chroma > 0, chroma, 1)
    sixth = torch.where(
        value == red,
        (green - blue) / grain,
        torch.where(value == green, 2 + (blue - red) / grain, 4 + (red - green) / grain),
    ) + 6 * turn.squeeze(3)
    channels = [(sixth + start) % 6 for start in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in channels], 3)
