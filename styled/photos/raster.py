"""Levels of more than 8 bits, as a file has them: before its colours are converted to sRGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from styled.degradation import Degradation

Levels = NDArray[np.uint16]
Space = Literal["gray", "rgb", "cmyk"]

CHANNELS: dict[Space, int] = {"gray": 1, "rgb": 3, "cmyk": 4}
_BAND_ROWS = 256


@dataclass(frozen=True, slots=True)
class Raster:
    """An image of more than 8 bits.

    Attributes:
        colors: HxWxC, 0..65535; C is 1 for grey, 3 for RGB, 4 for CMYK.
        space: What the channels are.
        alpha: HxW opacity, None: all pixels are opaque.
        is_srgb: Whether the colours are in sRGB already, whatever profile the file has.
        degraded: What was lost on reading.
    """

    colors: Levels
    space: Space
    alpha: Levels | None = None
    is_srgb: bool = False
    degraded: tuple[Degradation, ...] = ()


def to_sixteen_bit(values: NDArray[Any]) -> tuple[Levels, tuple[Degradation, ...]]:
    """Scale numbers of any type to 0..65535.

    Floating-point numbers in [0, 1] and integers in [0, 65535] are levels; all others are
    stretched from the lowest to the highest, which is noted. NaN is 0.

    Args:
        values: Of any shape; 16-bit ones are returned as they are.
    """
    if values.dtype == np.uint16:
        return values, ()
    if values.dtype == np.uint8:
        return values.astype(np.uint16) * np.uint16(257), ()
    is_float = values.dtype.kind == "f"
    if is_float:
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= (1 if is_float else 65535):
        return _scaled(values, 0.0, 65535.0 if is_float else 1.0), ()
    scale = 65535 / (high - low) if high > low else 0.0
    message = f"brightness values from {low:g} to {high:g} were stretched"
    return _scaled(values, low, scale), (Degradation("bits", message),)


def unpremultiplied(colors: Levels, alpha: Levels) -> Levels:
    """Return colours that were multiplied by the opacity as they were before.

    Args:
        colors: HxWx3.
        alpha: HxW; where it is 0 there are no colours, and black is returned.
    """
    result = np.empty_like(colors)
    for top in range(0, len(colors), _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)
        opacity = np.maximum(alpha[rows, :, None], 1).astype(np.float32) / 65535
        result[rows] = (colors[rows] / opacity + 0.5).clip(0, 65535)
    return result


def _scaled(values: NDArray[Any], low: float, scale: float) -> Levels:
    result = np.empty(values.shape, dtype=np.uint16)
    for top in range(0, len(values), _BAND_ROWS):  # in bands, to keep the memory small
        band = values[top : top + _BAND_ROWS].astype(np.float64)
        result[top : top + _BAND_ROWS] = ((band - low) * scale + 0.5).clip(0, 65535)
    return result


def widen(levels: Levels, bits: int) -> Levels:
    """Extend levels whose upper `bits` bits are used, so that the highest one becomes 65535."""
    if not 8 < bits < 16:
        return levels
    return levels | (levels >> np.uint16(bits))
