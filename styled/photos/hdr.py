"""Converts high dynamic range levels (PQ, HLG) to sRGB.

Tone mapping: below the knee, 0.8 of diffuse white (203 cd/m2, ITU-R BT.2408), levels are unchanged.
Above it highlights roll off by y = 1 - 0.04 / (x - 0.6). The curve is applied to the largest of the
three channels, which preserves hues.

Source: SMPTE ST 2084 and ITU-R BT.2100 (PQ, HLG and its OOTF for 1000 cd/m2); BT.2408 (203 cd/m2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from styled.photos.color_spaces import ColorSpace

Floats = NDArray[np.float32]

DIFFUSE_WHITE = 203.0
"""Brightness of a sheet of white paper, in cd/m2."""

_PEAK_OF_HLG, _GAMMA_OF_HLG = 1000.0, 1.2
_KNEE = 0.8
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)  # of BT.2020
_ROWS = 128


def hdr_to_srgb(levels: NDArray[np.uint8] | NDArray[np.uint16], space: ColorSpace) -> Floats:
    """Convert levels to sRGB in [0, 1].

    Args:
        levels: HxWx3 of 8 or 16 bits.
        space: Whose transfer is `pq` or `hlg`.
    """
    max_level = np.float32(np.iinfo(levels.dtype).max)
    matrix = space.to_linear_srgb().astype(np.float32)
    decode = _decode_pq if space.transfer == "pq" else _decode_hlg
    result = np.empty(levels.shape, dtype=np.float32)
    for top in range(0, len(levels), _ROWS):
        encoded = levels[top : top + _ROWS].astype(np.float32) / max_level
        linear = decode(encoded) @ matrix.T  # 1 is diffuse white
        result[top : top + _ROWS] = _encode_srgb(_compress(np.maximum(linear, 0)))
    return result


def _decode_pq(encoded: Floats) -> Floats:
    """Return linear light in units of diffuse white (ST 2084, equation 4.1)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = encoded.astype(np.float64) ** (1 / m2)
    linear = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return (linear * (10_000 / DIFFUSE_WHITE)).astype(np.float32)


def _decode_hlg(encoded: Floats) -> Floats:
    """Return display light in units of diffuse white (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(encoded <= 0.5, encoded**2 / 3, (np.exp((encoded - c) / a) + b) / 12)
    luminance = (scene @ _LUMINANCE)[..., None]
    display = np.maximum(luminance, 1e-9) ** (_GAMMA_OF_HLG - 1) * scene
    return (display * (_PEAK_OF_HLG / DIFFUSE_WHITE)).astype(np.float32)


def _compress(linear: Floats) -> Floats:
    peak = linear.max(axis=-1, keepdims=True)
    rest = 1 - _KNEE
    compressed = np.where(
        peak <= _KNEE, peak, 1 - rest**2 / (np.maximum(peak, _KNEE) - _KNEE + rest)
    )
    return np.asarray(linear * (compressed / np.maximum(peak, 1e-9)), dtype=np.float32)


def _encode_srgb(linear: Floats) -> Floats:
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    ).astype(np.float32)
