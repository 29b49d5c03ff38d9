"""Drawing functions for the two demo pictures: coordinates, noise, colour ramps, layers.

Positions and sizes are fractions of the picture (x to the right, y down, tuned for 4:3), so that
the same scene is drawn at every size. Palettes are hex colours separated by spaces. Images are
HxWx3 float arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating]

CANVAS_SCALE = 1.5  # both pictures are drawn larger and scaled down, for smooth edges
ASPECT = 4 / 3


def coordinates(width: int, height: int) -> tuple[Array, Array]:
    """Return x and y of every canvas pixel as fractions of the picture, each HxW.

    Args:
        width: Of the final picture in pixels; the canvas is larger by `CANVAS_SCALE`.
        height: As `width`.
    """
    rows, columns = round(height * CANVAS_SCALE), round(width * CANVAS_SCALE)
    y, x = np.indices((rows, columns), np.float32)
    return (x + 0.5) / columns, (y + 0.5) / rows


def noise(rng: Generator, shape: tuple[int, ...], cells: tuple[int, int], octaves: int) -> Array:
    """Return tileable fractal noise with mean 0.5.

    Each octave has twice the frequency and about half the amplitude of the one before.
    """
    rows, columns = shape
    total, border = np.full((rows, columns), 0.5, np.float32), 3
    for octave in range(octaves):
        grid = rng.uniform(-0.5, 0.5, (cells[1] << octave, cells[0] << octave))
        padded = Image.fromarray(np.pad(grid.astype(np.float32), border, mode="wrap"))
        inner = (border, border, padded.width - border, padded.height - border)
        fine = padded.resize((columns, rows), Image.Resampling.BICUBIC, box=inner)
        total += np.float32(0.53**octave) * np.asarray(fine)
    return total


def sample(texture: Array, x: Array, y: Array) -> Array:
    """Sample a tiling texture with bilinear interpolation at `x`, `y`, in units of one tile."""
    x, y = x * texture.shape[1], y * texture.shape[0]
    left, top = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    columns = left % texture.shape[1], (left + 1) % texture.shape[1]
    upper, lower = (
        texture[row, columns[0]] * (1 - x + left) + texture[row, columns[1]] * (x - left)
        for row in (top % texture.shape[0], (top + 1) % texture.shape[0])
    )
    blend: Array = upper + (lower - upper) * (y - top)
    return blend


def step(value: Array, low: float, high: float) -> Array:
    """Smoothstep: rises from 0 at `low` to 1 at `high`; `high` may be less than `low`."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    smooth: Array = t * t * (3 - 2 * t)
    return smooth


def ramp(value: Array | float, palette: str) -> Array:
    """Interpolate between evenly spaced colours: the first of the palette at 0, the last at 1."""
    colors = np.array([tuple(bytes.fromhex(color)) for color in palette.split()]) / 255
    positions = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(np.asarray(value), positions, c) for c in colors.T], axis=-1).astype(
        np.float32
    )


def cover(view: Array, color: Array, mask: Array) -> None:
    """Alpha-blend `color` over `view` in place, with `mask` as alpha."""
    view += (color - view) * mask[..., None]


def scaled(view: Array, width: int, height: int) -> Image.Image:
    """Convert a canvas to an RGB picture of the given size."""
    pixels = Image.fromarray((np.clip(view, 0, 1) * 255 + 0.5).astype(np.uint8))
    return pixels.resize((width, height), Image.Resampling.LANCZOS)
