"""The pictures `styled demo` draws for itself."""

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
    """HxW float64 in [0, 1]."""
    return np.asarray(picture.convert("L"), np.float64) / 255


def patch_gradients(picture: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """Gradient energy of each patch, and the part of it that points one way (as a double angle)."""
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
    """1 where every gradient of a patch lies along one line, near 0 where they point anywhere."""
    energy, along = patch_gradients(picture)
    return float(np.mean(abs(along) / energy))


@pytest.fixture(scope="module")
def painting() -> Image.Image:
    return draw_painting()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return draw_photo()


def test_default_size(photo: Image.Image, painting: Image.Image) -> None:
    """Both pictures are 480 x 360 RGB when no size is asked for."""
    assert (photo.size, photo.mode) == ((480, 360), "RGB")
    assert (painting.size, painting.mode) == ((480, 360), "RGB")


@both_pictures
@pytest.mark.parametrize("size", [(160, 120), (121, 161), (64, 48)])
def test_asked_size(draw: Draw, size: tuple[int, int]) -> None:
    """Any size can be asked for, upright and odd ones too."""
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
    """Tones run from deep shadow to bright light, with few pixels lost at either end."""
    tones = brightness(draw(*SMALL))
    low, high = np.percentile(tones, (1, 99))
    assert low < 0.15
    assert high > 0.75
    assert np.std(tones) > 0.15
    assert np.mean((tones < 0.01) | (tones > 0.99)) < 0.03


def test_photo_structure(photo: Image.Image) -> None:
    """The photo's large shapes carry most of its contrast, so a stylised one stays readable."""
    large_shapes = brightness(photo.resize((24, 18), Image.Resampling.BOX))
    assert np.std(large_shapes) > 0.75 * np.std(brightness(photo))


def test_painting_colours(painting: Image.Image) -> None:
    """The painting has blues, ochres and crimsons, each over a visible share of the canvas."""
    red, green, blue = np.moveaxis(np.asarray(painting, np.float64) / 255, -1, 0)
    assert np.mean(blue > red + 0.15) > 0.25
    assert np.mean((red > blue + 0.25) & (green > 0.6 * red)) > 0.12
    assert np.mean((red > 0.4) & (green < 0.45 * red)) > 0.02


def test_painting_is_textured_everywhere(painting: Image.Image, photo: Image.Image) -> None:
    """Brush strokes cover the canvas: no patch is flat, and a photo has far less relief."""
    energy, _ = patch_gradients(painting)
    assert np.percentile(energy, 1) / PATCH_PX**2 > 5e-4
    assert np.median(energy) > 3 * np.median(patch_gradients(photo)[0])


def test_painting_strokes_have_a_direction(painting: Image.Image) -> None:
    """Within a patch the strokes run side by side, unlike the same pixels in random order."""
    pixels = np.asarray(painting).reshape(-1, 3)
    shuffled = np.random.default_rng(0).permutation(pixels).reshape(360, 480, 3)
    assert coherence(painting) > 0.5
    assert coherence(painting) > 3 * coherence(Image.fromarray(shuffled))


def test_painting_strokes_turn(painting: Image.Image) -> None:
    """Across the canvas the strokes run in every direction: no quarter of them is missing."""
    _, along = patch_gradients(painting)
    share, _ = np.histogram(np.angle(along), bins=4, range=(-np.pi, np.pi))
    assert share.min() > 0.08 * share.sum()
