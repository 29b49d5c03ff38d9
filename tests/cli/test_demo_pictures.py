"""Tests of the pictures that `styled demo` draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from styled.cli.demo_pictures import draw_painting, draw_photo

Draw = Callable[[int, int], Image.Image]
both_pictures = pytest.mark.parametrize("draw", [draw_photo, draw_painting])

SMALL = (160, 120)
PATCH_PX = 12  # about the size of a brush stroke at the default size


def brightness(picture: Image.Image) -> NDArray[np.float64]:
    """Return the luminance, HxW float64 in [0, 1]."""
    return np.asarray(picture.convert("L"), np.float64) / 255


def patch_gradients(picture: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """Return the gradient energy of each patch, and the sum of its squared complex gradients.

    The magnitude of the sum is the energy along the dominant direction, its angle twice that of the
    direction.
    """
    light = brightness(picture)
    down, right = np.gradient(light)
    gradient: NDArray[np.complex128] = np.asarray(right) + 1j * np.asarray(down)
    rows, columns = (size // PATCH_PX for size in light.shape)
    patches = (
        gradient[: rows * PATCH_PX, : columns * PATCH_PX]
        .reshape(rows, PATCH_PX, columns, PATCH_PX)
        .swapaxes(1, 2)
        .reshape(rows * columns, -1)
    )
    # Squaring doubles the angle, so that opposite sides of a stroke add up instead of cancelling.
    return (abs(patches) ** 2).sum(axis=1), (patches**2).sum(axis=1)


def coherence(picture: Image.Image) -> float:
    """Return 1 if all gradients of each patch are parallel, near 0 if directions are random."""
    energy, along = patch_gradients(picture)
    return float(np.mean(abs(along) / energy))


@pytest.fixture(scope="module")
def painting() -> Image.Image:
    return draw_painting()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return draw_photo()


def test_default_size(photo: Image.Image, painting: Image.Image) -> None:
    """By default both pictures are 480 x 360 RGB."""
    assert (photo.size, photo.mode) == ((480, 360), "RGB")
    assert (painting.size, painting.mode) == ((480, 360), "RGB")


@both_pictures
@pytest.mark.parametrize("size", [(160, 120), (121, 161), (64, 48)])
def test_asked_size(draw: Draw, size: tuple[int, int]) -> None:
    """Any size is supported, including portrait format and odd numbers."""
    picture = draw(*size)
    assert picture.size == size
    assert picture.mode == "RGB"


@both_pictures
def test_same_bytes_every_time(draw: Draw) -> None:
    """Drawing twice gives the same bytes."""
    assert draw(*SMALL).tobytes() == draw(*SMALL).tobytes()


def test_same_scene_at_every_size(photo: Image.Image) -> None:
    """A small photo shows the same scene as a large one."""
    shrunk = brightness(photo.resize(SMALL, Image.Resampling.BOX))
    assert np.corrcoef(shrunk.ravel(), brightness(draw_photo(*SMALL)).ravel())[0, 1] > 0.95


@both_pictures
def test_tonal_range(draw: Draw) -> None:
    """The pictures use the full tonal range, with few clipped pixels."""
    luminances = brightness(draw(*SMALL))
    low, high = np.percentile(luminances, (1, 99))
    assert low < 0.15
    assert high > 0.75
    assert np.std(luminances) > 0.15
    assert np.mean((luminances < 0.01) | (luminances > 0.99)) < 0.03


def test_photo_structure(photo: Image.Image) -> None:
    """Most of the photo's contrast is in large shapes, which remain visible when stylised."""
    large_shapes = brightness(photo.resize((24, 18), Image.Resampling.BOX))
    assert np.std(large_shapes) > 0.75 * np.std(brightness(photo))


def test_painting_colours(painting: Image.Image) -> None:
    """Blue, ochre and crimson each cover a visible part of the painting."""
    red, green, blue = np.moveaxis(np.asarray(painting, np.float64) / 255, -1, 0)
    assert np.mean(blue > red + 0.15) > 0.25
    assert np.mean((red > blue + 0.25) & (green > 0.6 * red)) > 0.12
    assert np.mean((red > 0.4) & (green < 0.45 * red)) > 0.02


def test_painting_is_textured_everywhere(painting: Image.Image, photo: Image.Image) -> None:
    """No patch of the painting is flat, and the photo has far less texture."""
    energy, _ = patch_gradients(painting)
    assert np.percentile(energy, 1) / PATCH_PX**2 > 5e-4
    assert np.median(energy) > 3 * np.median(patch_gradients(photo)[0])


def test_painting_strokes_have_a_direction(painting: Image.Image) -> None:
    """Strokes within a patch are parallel, unlike the same pixels in random order."""
    pixels = np.asarray(painting).reshape(-1, 3)
    shuffled = np.random.default_rng(0).permutation(pixels).reshape(360, 480, 3)
    assert coherence(painting) > 0.5
    assert coherence(painting) > 3 * coherence(Image.fromarray(shuffled))


def test_painting_strokes_turn(painting: Image.Image) -> None:
    """Over the whole painting the strokes have all directions: each quarter is represented."""
    _, along = patch_gradients(painting)
    share, _ = np.histogram(np.angle(along), bins=4, range=(-np.pi, np.pi))
    assert share.min() > 0.08 * share.sum()
