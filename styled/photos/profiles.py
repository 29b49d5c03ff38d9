"""Applies ICC profiles in more than 8 bits, which Pillow's colour management can't.

Nearly every profile that photographers work in (sRGB, Adobe RGB, Display P3, ProPhoto) consists
of a tone curve for each channel, which gives linear light, and a matrix. Profiles for grey images
have a single curve. Such profiles are applied here in floating point. `Profile.parse` returns None
for those with lookup tables: libvips converts photos that have one, in 16 bits, and Pillow
converts results to them, in 8 bits.

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

Float32Array = NDArray[np.float32]

_CURVE_POINTS = 16384
"""Curves are resampled to this many points, and interpolated linearly in between.

Most profiles give a formula or 1024 points.
"""

_MAX_CURVE_POINTS, _MAX_TAGS = 65536, 200
"""More are found in hostile files only."""

_TOLERANCE = 0.002
"""Maximum difference of curves and matrices of one colour space in profiles of several vendors."""

_LUT_TAGS = (b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1")
_INPUTS = np.linspace(0, 1, _CURVE_POINTS)
_BAND_PIXELS = 1 << 20
"""Pixels that are converted at once: numpy interpolates in float64."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An ICC profile for RGB with curves and a matrix, or for grey with one curve.

    Attributes:
        curves: For each channel, linear light in [0, 1] at `_CURVE_POINTS` evenly spaced values in
            [0, 1], non-decreasing.
        matrix: 3x3, from linear light to XYZ under D50; None: a profile for grey.
    """

    curves: tuple[NDArray[np.float64], ...]
    matrix: NDArray[np.float64] | None

    @classmethod
    def parse(cls, icc: bytes) -> Self | None:
        """Return the profile; None if it is damaged, has tables, or is for neither RGB nor grey."""
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

    def is_same_rgb_space(self, other: Profile) -> bool:
        """Return whether both are for RGB and equal within `_TOLERANCE`."""
        if self.matrix is None or other.matrix is None or len(self.curves) != len(other.curves):
            return False
        mine, others = (self.matrix, *self.curves), (other.matrix, *other.curves)
        return all(np.abs(a - b).max() < _TOLERANCE for a, b in zip(mine, others, strict=True))


def convert(pixels: Float32Array, source: Profile, target: Profile) -> Float32Array:
    """Convert pixels from one profile to another.

    This is the relative colorimetric intent for matrix profiles, whose black point is 0.

    Args:
        pixels: HxWxC in [0, 1], for the C channels of `source`: 3, or 1 for grey.
        source: The profile of the pixels.
        target: The profile to convert to, with the same number of channels.

    Returns:
        A new array, HxWxC, clamped to [0, 1].

    Raises:
        ValueError: One profile is for grey and the other is not.
    """
    if source.is_gray != target.is_gray:
        raise ValueError("grey and colours can't be converted into one another")
    source_to_target = None
    if source.matrix is not None and target.matrix is not None:
        source_to_target = np.linalg.solve(target.matrix, source.matrix).astype(np.float32)
    result = np.empty_like(pixels)
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        band = pixels[top : top + rows]
        linear = np.stack(
            [np.interp(band[..., c], _INPUTS, curve) for c, curve in enumerate(source.curves)],
            axis=-1,
        ).astype(np.float32)
        if source_to_target is not None:
            linear = linear @ source_to_target.T
        for c, curve in enumerate(target.curves):
            # The inverse curve: x and y are swapped. np.interp clamps to the ends.
            result[top : top + rows, :, c] = np.interp(linear[..., c], curve, _INPUTS)
    return result


def _tags(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    tags = {}
    for index in range(min(count, _MAX_TAGS)):
        signature, offset, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
        tags[signature] = icc[offset : offset + size]
    return tags


def _xyz(content: bytes) -> NDArray[np.float64]:
    return np.array(struct.unpack_from(">3i", content, 8)) / 65536  # s15Fixed16Number


@lru_cache(maxsize=64)
def _curve(content: bytes) -> NDArray[np.float64]:
    """Return the curve of a tag at `_INPUTS`, non-decreasing, so that it can be inverted.

    Cached: most photos have one of a few profiles, and a curve takes half a millisecond. The
    arrays are shared, and must not be written to.

    Raises:
        ValueError, struct.error, IndexError: the tag is malformed, or the curve falls or is flat.
    """
    if content[:4] == b"curv":
        (count,) = struct.unpack_from(">I", content, 8)
        if count == 0:
            return _INPUTS  # the identity
        if count == 1:
            (gamma,) = struct.unpack_from(">H", content, 12)  # u8Fixed8Number
            if gamma == 0:
                raise ValueError("gamma is 0")
            return np.asarray(_INPUTS ** (gamma / 256))
        if count > _MAX_CURVE_POINTS:
            raise ValueError("a curve with too many points")
        points = np.array(struct.unpack_from(f">{count}H", content, 12)) / 65535
        curve = np.interp(_INPUTS, np.linspace(0, 1, count), points)
    elif content[:4] == b"para":
        curve = _parametric(content)
    else:
        raise ValueError("an unknown kind of curve")
    if not np.isfinite(curve).all() or (np.diff(curve) < -1e-6).any() or curve[-1] <= curve[0]:
        raise ValueError("a curve that falls or is flat")
    return np.maximum.accumulate(curve.clip(0, 1))


def _parametric(content: bytes) -> NDArray[np.float64]:
    """Return a parametric curve: (a x + b)^gamma + e from x = d on, c x + f below it.

    All five kinds are brought into this form. Source: ICC.1:2022, section 10.18, table 68.
    """
    (kind,) = struct.unpack_from(">H", content, 8)
    counts = (1, 3, 4, 5, 7)
    values = [v / 65536 for v in struct.unpack_from(f">{counts[kind]}i", content, 12)]
    gamma, a, b, c, d, e, f = {
        0: lambda: (*values, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0),
        1: lambda: (*values, 0.0, -values[2] / values[1] if values[1] else 0.0, 0.0, 0.0),
        2: lambda: (*values[:3], 0.0, -values[2] / values[1] if values[1] else 0.0,
                    values[3], values[3]),
        3: lambda: (*values, 0.0, 0.0),
        4: lambda: tuple(values),
    }[kind]()  # fmt: skip
    x = _INPUTS
    power = np.maximum(a * x + b, 0) ** gamma + e
    curve: NDArray[np.float64] = np.where(x >= d, power, c * x + f)
    return curve
