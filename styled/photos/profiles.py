"""Applies ICC profiles in more than 8 bits, which Pillow's colour management can't.

Nearly every profile that photographers work in (sRGB, Adobe RGB, Display P3, ProPhoto) consists
of one curve for each channel, to linear light, and a matrix; those of grey images are a curve
alone. Such profiles are applied here in floating point. Profiles made of tables are left to
Pillow, in 8 bits.

Source: ICC.1:2022, sections 7 (file), 9.2 (tags), 10.6 curveType, 10.18 parametricCurveType,
10.31 XYZType, and F.3 (the three-component matrix-based model).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_GRID = 16384
"""Points of a curve, interpolated in between; most profiles give a formula or 1024 points."""

_MAX_POINTS = 65536
_TOLERANCE = 0.002
_LUT_TAGS = (b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1")
_IDENTITY = np.linspace(0, 1, _GRID)
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True, slots=True)
class Profile:
    """A colour space of one or three channels.

    Attributes:
        curves: For each channel, linear light at `_GRID` evenly spaced levels.
        matrix: 3x3, from linear light to XYZ under D50; None for grey, which has Y alone.
    """

    curves: tuple[NDArray[np.float64], ...]
    matrix: NDArray[np.float64] | None

    @classmethod
    def parse(cls, icc: bytes) -> Self | None:
        """Return the profile in `icc`, None if it is damaged, of tables or of another space."""
        try:
            tags = _tags(icc)
            if any(tag in tags for tag in _LUT_TAGS) or icc[20:24] != b"XYZ ":
                return None
            if icc[16:20] == b"GRAY":
                return cls((_curve(tags[b"kTRC"]),), None)
            if icc[16:20] != b"RGB ":
                return None
            matrix = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
            if abs(np.linalg.det(matrix)) < 1e-6:
                return None
            curves = tuple(_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
            return cls(curves, matrix)
        except (KeyError, ValueError, struct.error, IndexError, np.linalg.LinAlgError):
            return None

    @property
    def is_gray(self) -> bool:
        """Whether it is for images of one channel."""
        return self.matrix is None

    def is_like(self, other: Profile) -> bool:
        """Return whether both are the same RGB colour space, but for rounding in their files."""
        if self.matrix is None or other.matrix is None or len(self.curves) != len(other.curves):
            return False
        mine, others = (self.matrix, *self.curves), (other.matrix, *other.curves)
        return all(np.abs(a - b).max() < _TOLERANCE for a, b in zip(mine, others, strict=True))


def convert(levels: Floats, source: Profile, target: Profile) -> Floats:
    """Convert levels in [0, 1] from one profile to another, clamped to [0, 1].

    This is the relative colorimetric intent for matrix profiles, whose black point is 0.

    Args:
        levels: HxWxC for the C channels of `source`: 3, or 1 for grey.
        source: The profile of the levels.
        target: The profile to convert to, with the same number of channels.

    Raises:
        ValueError: One profile is for grey and the other is not.
    """
    if source.is_gray != target.is_gray:
        raise ValueError("grey and colours can't be converted into one another")
    if source.matrix is not None and target.matrix is not None:
        source_to_target = np.linalg.solve(target.matrix, source.matrix).astype(np.float32)
    result = np.empty_like(levels)
    rows = max(1, _BAND_PIXELS // levels.shape[1])
    for top in range(0, len(levels), rows):
        band = levels[top : top + rows]
        linear = np.stack(
            [np.interp(band[..., c], _IDENTITY, curve) for c, curve in enumerate(source.curves)],
            axis=-1,
        ).astype(np.float32)
        if not source.is_gray:
            linear = linear @ source_to_target.T
        for c, curve in enumerate(target.curves):
            result[top : top + rows, :, c] = np.interp(linear[..., c], curve, _IDENTITY)
    return result


def _tags(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    tags = {}
    for index in range(min(count, 200)):
        name, offset, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
        tags[name] = icc[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> NDArray[np.float64]:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


@lru_cache(maxsize=64)
def _curve(tag: bytes) -> NDArray[np.float64]:
    """Return a curve at `_GRID` levels; it never falls, so that it can be inverted.

    Cached: most photos have one of a few profiles, and a curve takes half a millisecond.
    """
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return _IDENTITY
        if count == 1:
            (gamma,) = struct.unpack_from(">H", tag, 12)
            if gamma == 0:
                raise ValueError("a curve that does not rise")
            return np.asarray(_IDENTITY ** (gamma / 256))
        if count > _MAX_POINTS:
            raise ValueError("a curve of too many points")
        points = np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65535
        curve = np.interp(_IDENTITY, np.linspace(0, 1, count), points)
    elif tag[:4] == b"para":
        curve = _parametric(tag)
    else:
        raise ValueError("an unknown kind of curve")
    if not np.isfinite(curve).all() or (np.diff(curve) < -1e-6).any() or curve[-1] <= curve[0]:
        raise ValueError("a curve that does not rise")
    return np.maximum.accumulate(curve.clip(0, 1))


def _parametric(tag: bytes) -> NDArray[np.float64]:
    """Return Y of X, section 10.18, table 68: a power law with a linear segment near black."""
    (kind,) = struct.unpack_from(">H", tag, 8)
    counts = (1, 3, 4, 5, 7)
    values = [v / 65536 for v in struct.unpack_from(f">{counts[kind]}i", tag, 12)]
    gamma, a, b, c, d, e, f = {
        0: lambda: (*values, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0),
        1: lambda: (*values, 0.0, -values[2] / values[1] if values[1] else 0.0, 0.0, 0.0),
        2: lambda: (*values[:3], 0.0, -values[2] / values[1] if values[1] else 0.0,
                    values[3], values[3]),
        3: lambda: (*values, 0.0, 0.0),
        4: lambda: tuple(values),
    }[kind]()  # fmt: skip
    x = _IDENTITY
    power = np.maximum(a * x + b, 0) ** gamma + e
    curve: NDArray[np.float64] = np.where(x >= d, power, c * x + f)
    return curve
