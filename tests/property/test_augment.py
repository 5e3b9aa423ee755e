"""Laws of augmented views: keyed by image, never by its company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as transforms

from trainers import randomness
from trainers.data import augment
from trainers.data.augment import Recipe

BILINEAR = transforms.InterpolationMode.BILINEAR

often = settings(deadline=None, max_examples=40)


def images(ids: torch.Tensor, height: int = 6, width: int = 7, channels: int = 3) -> torch.Tensor:
    """Every image of an id is the same wherever it is."""
    pixels = torch.arange(height * width * channels).view(1, height, width, channels)
    return ((ids.view(-1, 1, 1, 1) * 37 + pixels * 11) % 251).to(torch.uint8)


@often
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=12, unique=True),
    st.integers(0, 2**40),
    st.randoms(),
)
def test_a_view_does_not_depend_on_the_rest_of_the_batch(
    ids: list[int], stream: int, random: object
) -> None:
    whole = torch.tensor(ids)
    visits = whole % 3
    moved = augment.shift_and_flip(images(whole), whole, visits, stream, shift=2, flip=True)
    noisy = augment.noise(whole, visits, stream, 9)
    for i in range(len(ids)):
        one = whole[i : i + 1]
        assert torch.equal(
            moved[i : i + 1],
            augment.shift_and_flip(images(one), one, visits[i : i + 1], stream, shift=2, flip=True),
        )
        torch.testing.assert_close(
            noisy[i : i + 1], augment.noise(one, visits[i : i + 1], stream, 9), atol=1e-6, rtol=0
        )


@often
@given(st.integers(0, 2**40), st.integers(1, 4))
def test_a_shift_is_a_crop_of_the_reflected_image(stream: int, shift: int) -> None:
    ids = torch.arange(20)
    original = images(ids)
    moved = augment.shift_and_flip(original, ids, ids * 0, stream, shift=shift, flip=False)
    padded = (
        functional.pad(original.permute(0, 3, 1, 2).float(), (shift,) * 4, mode="reflect")
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
    )
    for i in range(len(ids)):
        crops = [
            padded[i, y : y + 6, x : x + 7]
            for y in range(2 * shift + 1)
            for x in range(2 * shift + 1)
        ]
        assert any(torch.equal(moved[i], crop) for crop in crops)


@pytest.mark.parametrize("other", [{"stream": 8}, {"visits": 1}])
def test_streams_and_visits_give_other_views(other: dict[str, int]) -> None:
    ids = torch.arange(200)
    usual = augment.shift_and_flip(images(ids), ids, ids * 0, 7, shift=1, flip=True)
    changed = augment.shift_and_flip(
        images(ids),
        ids,
        ids * 0 + other.get("visits", 0),
        other.get("stream", 7),
        shift=1,
        flip=True,
    )
    same = (usual == changed).flatten(1).all(1).float().mean().item()
    assert same < 0.2  # one in 18 by chance


def test_shifts_and_flips_are_uniform() -> None:
    ids = torch.arange(9000)
    # The value tells where each pixel came from.
    source = torch.arange(5 * 5, dtype=torch.int64).view(1, 5, 5, 1).expand(len(ids), 5, 5, 1)
    moved = augment.shift_and_flip(source, ids, ids * 0, 3, shift=1, flip=True)[..., 0]
    centres, flipped = moved[:, 2, 2], moved[:, 2, 1] > moved[:, 2, 3]
    counts = torch.bincount(centres * 2 + flipped, minlength=50)
    found = counts[counts > 0].numpy()
    assert len(found) == 18
    assert (
        (found - 500.0) ** 2 / 500
    ).sum() < 45  # chi-square, 17 degrees of freedom, far in the tail; the draw is fixed


def test_no_augmentation_leaves_the_image_alone() -> None:
    ids = torch.arange(4)
    assert torch.equal(
        augment.shift_and_flip(images(ids), ids, ids, 5, shift=0, flip=False), images(ids)
    )


def test_noise_is_standard_normal_and_uncorrelated() -> None:
    ids = torch.arange(4000)
    values = augment.noise(ids, ids * 0, 11, 16).double()
    assert abs(values.mean().item()) < 0.02 and abs(values.std().item() - 1) < 0.02
    assert abs((values**4).mean().item() - 3) < 0.15
    correlation = np.corrcoef(values.numpy().T) - np.eye(16)
    assert np.abs(correlation).max() < 0.08
    assert abs((values[1:] * values[:-1]).mean().item()) < 0.02


RECIPES = {
    "rotation": Recipe(shift=2, flip=True, rotation=10),
    "resized crop": Recipe(flip=True, rotation=10, resized_crop=True),
    "everything": Recipe(flip=True, rotation=10, resized_crop=True, jitter=(0.4, 0.4, 0.4, 0.1)),
    "colours": Recipe(jitter=(0.4, 0.4, 0.4, 0.1)),
}


@pytest.mark.parametrize("name", RECIPES)
@often
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=9, unique=True), st.integers(0, 2**40))
def test_a_warped_view_does_not_depend_on_the_rest_of_the_batch(
    name: str, ids: list[int], stream: int
) -> None:
    whole = torch.tensor(ids)
    visits = whole % 3
    views = augment.view(images(whole, 12, 13), whole, visits, stream, RECIPES[name], (10, 10))
    assert views.shape == (len(ids), 10, 10, 3)
    assert views.min() >= 0 and views.max() <= 255
    for i in range(len(ids)):
        one = whole[i : i + 1]
        alone = augment.view(
            images(one, 12, 13), one, visits[i : i + 1], stream, RECIPES[name], (10, 10)
        )
        torch.testing.assert_close(views[i : i + 1], alone, atol=1e-2, rtol=0)


@often
@given(st.integers(0, 2**40), st.integers(0, 3))
def test_a_warp_without_a_rotation_moves_whole_pixels_over_black(stream: int, shift: int) -> None:
    ids = torch.arange(20)
    original = images(ids)
    recipe = Recipe(shift=shift, flip=True, rotation=1e-6)
    moved = augment.view(original, ids, ids * 0, stream, recipe, (6, 7)).round()
    padded = functional.pad(original.permute(0, 3, 1, 2).float(), (shift,) * 4).permute(0, 2, 3, 1)
    for i in range(len(ids)):
        crops = [
            padded[i, y : y + 6, x : x + 7]
            for y in range(2 * shift + 1)
            for x in range(2 * shift + 1)
        ]
        assert any(
            torch.equal(moved[i], crop) or torch.equal(moved[i], crop.flip(1)) for crop in crops
        )


def test_a_rotation_is_torchvisions() -> None:
    ids = torch.arange(30)
    smooth = (
        (torch.linspace(0, 200, 33)[:, None, None] + torch.linspace(0, 50, 33)[None, :, None])
        .expand(30, 33, 33, 3)
        .contiguous()
    )
    turned = augment.view(smooth.to(torch.uint8), ids, ids * 0, 5, Recipe(rotation=10), (33, 33))
    stored = smooth.to(torch.uint8).permute(0, 3, 1, 2).float()
    angles = (
        2
        * randomness.uniforms(
            randomness.draws(5, ids, ids * 0, augment._COLUMNS)[:, augment._ANGLE]
        )
        - 1
    ) * 10
    middle = (slice(None), slice(8, 25), slice(8, 25))
    worst = []
    # Which way round a positive angle turns is nobody's business: the draw is symmetric.
    for sign in (1, -1):
        rotated = [
            transforms.rotate(image, sign * float(angle), interpolation=BILINEAR)[middle]
            for image, angle in zip(stored, angles, strict=True)
        ]
        worst.append(
            max(
                float((one - mine.permute(2, 0, 1)[middle]).abs().max())
                for one, mine in zip(rotated, turned, strict=True)
            )
        )
    assert min(worst) < 0.05 < 5 < max(worst)
    assert angles.max() > 7 and angles.min() < -7


@pytest.mark.parametrize(
    "image",
    [
        torch.full((40, 24, 3), 200),
        (torch.arange(40 * 24) * 7 % 251).view(40, 24, 1).expand(40, 24, 3),
    ],
)
def test_a_stretched_part_is_torchvisions(image: torch.Tensor) -> None:
    ids = torch.arange(60)
    stored = image.to(torch.uint8).expand(60, 40, 24, 3).contiguous()
    ours = augment.view(stored, ids, ids * 0, 6, Recipe(resized_crop=True), (16, 20))
    parts = augment.random_part(randomness.draws(6, ids, ids * 0, augment._COLUMNS), 40, 24)
    for i in range(60):
        top, left, tall, wide = (int(part[i]) for part in parts)
        theirs = transforms.resized_crop(
            stored[i].permute(2, 0, 1).float(),
            top,
            left,
            tall,
            wide,
            [16, 20],
            BILINEAR,
            antialias=False,
        )
        torch.testing.assert_close(ours[i].permute(2, 0, 1), theirs, atol=0.02, rtol=0)


def test_colours_may_change_where_pixels_move() -> None:
    ids = torch.arange(20)
    moved = augment.view(images(ids), ids, ids * 0, 5, Recipe(shift=2, flip=True), (6, 7))
    coloured = augment.view(
        images(ids), ids, ids * 0, 5, Recipe(shift=2, flip=True, jitter=(0, 0, 0, 1e-9)), (6, 7)
    )
    torch.testing.assert_close(coloured, moved.float(), atol=1e-2, rtol=0)


def test_a_random_part_fits_and_has_the_areas_and_shapes_of_torchvisions() -> None:
    torch.manual_seed(0)
    ids = torch.arange(4000)
    bits = randomness.draws(9, ids, ids * 0, augment._COLUMNS)
    for height, width in ((32, 32), (20, 60)):
        top, left, tall, wide = augment.random_part(bits, height, width)
        assert (
            (top >= 0).all()
            and (top + tall <= height).all()
            and (left >= 0).all()
            and (left + wide <= width).all()
        )
        theirs = [
            RandomResizedCrop.get_params(torch.empty(3, height, width), [0.08, 1.0], [3 / 4, 4 / 3])
            for _ in range(4000)
        ]
        reference = torch.tensor(theirs, dtype=torch.float32)
        for ours, column in ((top, 0), (left, 1), (tall, 2), (wide, 3)):
            spread = float(reference[:, column].std())
            assert (
                abs(float(ours.mean() - reference[:, column].mean())) < 0.1 * spread
            )  # standard error of the difference: 0.022
            assert abs(float(ours.std()) / spread - 1) < 0.1


def test_a_recipe_names_the_least_and_largest_part() -> None:
    ids = torch.arange(500)
    bits = randomness.draws(9, ids, ids * 0, augment._COLUMNS)
    _, _, tall, wide = augment.random_part(bits, 64, 64, (0.5, 0.6))
    shares = tall * wide / 64**2
    # Sides are whole pixels.
    assert (shares > 0.47).all() and (shares < 0.63).all()
    few = ids[:5]
    whole, part = (
        augment.view(images(few, 20, 20), few, few * 0, 9, recipe, (20, 20))
        for recipe in (
            Recipe(resized_crop=True),
            Recipe(resized_crop=True, crop_area=(0.5, 0.6)),
        )
    )
    assert not torch.equal(whole, part)


def test_some_views_lose_their_colours_and_the_others_nothing() -> None:
    ids = torch.arange(2000)
    original = images(ids)
    views = augment.view(original, ids, ids * 0, 5, Recipe(greyscale=0.2), (6, 7))
    grey = (views == views[..., :1]).all((1, 2, 3))
    assert 0.16 < float(grey.float().mean()) < 0.24
    assert torch.equal(views[~grey], original[~grey].float())
    torch.testing.assert_close(views[grey][..., :1], augment.grey(original[grey].float()))


def test_an_image_of_one_channel_changes_in_brightness_and_contrast_alone() -> None:
    ids = torch.arange(20)
    original = images(ids, channels=1)
    plain, coloured = (
        augment.view(original, ids, ids * 0, 5, Recipe(greyscale=g, jitter=jitter), (6, 7))
        for g, jitter in ((0.0, (0.4, 0.3, 0.0, 0.0)), (0.5, (0.4, 0.3, 0.2, 0.1)))
    )
    assert plain.shape == (20, 6, 7, 1)
    torch.testing.assert_close(coloured, plain)


def test_a_part_that_never_fits_is_the_largest_in_the_middle() -> None:
    ids = torch.arange(50)
    bits = randomness.draws(9, ids, ids * 0, augment._COLUMNS)
    # A strip of one row: a part of the allowed shapes is one pixel high, which the drawn areas
    # exceed.
    top, left, tall, wide = augment.random_part(bits, 1, 400)
    assert (tall == 1).all() and (top == 0).all() and (wide == 1).all() and (left == 199).all()


def test_colours_change_as_torchvision_changes_them() -> None:
    ids = torch.arange(64)
    original = images(ids, 8, 8).float()
    recipe = Recipe(jitter=(0.4, 0.3, 0.2, 0.1))
    ours = augment.view(original.to(torch.uint8), ids, ids * 0, 5, recipe, (8, 8))
    draws = (
        2
        * randomness.uniforms(
            randomness.draws(5, ids, ids * 0, augment._COLUMNS)[
                :, augment._JITTER : augment._JITTER + 4
            ]
        )
        - 1
    )
    for i in range(len(ids)):
        brightness, contrast, saturation, hue = (draws[i] * torch.tensor(recipe.jitter)).tolist()
        image = original[i].permute(2, 0, 1) / 255
        image = transforms.adjust_brightness(image, 1 + brightness)
        image = transforms.adjust_contrast(image, 1 + contrast)
        image = transforms.adjust_saturation(image, 1 + saturation)
        image = transforms.adjust_hue(image, hue)
        torch.testing.assert_close(ours[i] / 255, image.permute(1, 2, 0), atol=2e-3, rtol=0)


def test_the_middle_is_torchvisions() -> None:
    ids = torch.arange(3)
    for size in ((4, 4), (5, 3), (6, 7)):
        ours = augment.centre(images(ids), size)
        assert torch.equal(
            ours.permute(0, 3, 1, 2),
            transforms.center_crop(images(ids).permute(0, 3, 1, 2), list(size)),
        )


@often
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
)
def test_keys_tell_word_lists_apart(a: list[int], b: list[int]) -> None:
    assert (randomness.key(*a) == randomness.key(*b)) == (a == b)


def test_the_mixer_is_splitmix64() -> None:
    # First outputs of the published generator from state 0, unsigned.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    counter = torch.arange(1, 4) * randomness._GOLDEN
    assert [x & 0xFFFF_FFFF_FFFF_FFFF for x in randomness._mix(counter).tolist()] == expected
