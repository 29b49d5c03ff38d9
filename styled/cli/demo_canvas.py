"""What the two demo pictures share: a canvas with coordinates, noise, colour ramps, layers.

Positions and sizes are fractions of the picture (x to the right, y down, tuned for 4:3), so
every size shows the same scene. Palettes are hex colours.
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
    """Place every canvas pixel: x and y as fractions of the picture."""
    rows, columns = round(height * CANVAS_SCALE), round(width * CANVAS_SCALE)
    y, x = np.indices((rows, columns), np.float32)
    return (x + 0.5) / columns, (y + 0.5) / rows


def noise(rng: Generator, shape: tuple[int, ...], cells: tuple[int, int], octaves: int) -> Array:
    """Make fractal noise around 0.5 that tiles: each octave is twice as fine and half as strong."""
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
    """Read a tiling texture at fractional positions (1.0 is one tile), bilinearly."""
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
    """Blend smoothly from 0 at `low` to 1 at `high`, which may lie below `low`."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    smooth: Array = t * t * (3 - 2 * t)
    return smooth


def ramp(value: Array | float, palette: str) -> Array:
    """Blend evenly spaced colours: the first of the palette at 0, the last at 1."""
    colours = np.array([tuple(bytes.fromhex(colour)) for colour in palette.split()]) / 255
    at = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(np.asarray(value), at, c) for c in colours.T], axis=-1).astype(
        np.float32
    )


def cover(view: Array, colour: Array, mask: Array) -> None:
    """Lay a colour over the view, in place, as far as the mask is 1."""
    view += (colour - view) * mask[..., None]


def scaled(view: Array, width: int, height: int) -> Image.Image:
    """Print a canvas as an RGB picture of the asked size."""
    pixels = Image.fromarray((np.clip(view, 0, 1) * 255 + 0.5).astype(np.uint8))
    return pixels.resize((width, height), Image.Resampling.LANCZOS)
