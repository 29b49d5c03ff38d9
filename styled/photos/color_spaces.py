"""Colour spaces that files name by numbers in place of an ICC profile.

A standard dynamic range space becomes an ICC profile of a matrix and a curve, and is applied like
an embedded one. High dynamic range (PQ, HLG) is decoded in `styled.photos.hdr`.

Source: ITU-T H.273 (2023), tables 2 and 3 (colour primaries, transfer characteristics); PNG, third
edition, section 12 (cICP, gAMA, cHRM); DCF 2.0 and Adobe RGB (1998) 4.3; ICC.1:2001-04.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Chromaticities = tuple[float, float, float, float, float, float, float, float]

_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)

# White point, then red, green, blue: x and y of each (H.273, table 2).
BT709: Chromaticities = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
BT2020: Chromaticities = (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
DISPLAY_P3: Chromaticities = (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE_RGB: Chromaticities = (*_D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
PRIMARIES: dict[int, tuple[str, Chromaticities]] = {
    1: ("BT.709", BT709),
    4: ("BT.470 M", (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.601 625", (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: ("BT.601 525", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    7: ("SMPTE 240M", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    8: ("generic film", (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: ("BT.2020", BT2020),
    11: ("DCI-P3", (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: ("Display P3", DISPLAY_P3),
    22: ("EBU 3213", (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077)),
}
_UNSPECIFIED = 2

_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_PQ, _HLG = 16, 18
# 1, 6, 14, 15 (the curve of BT.709, for cameras) and 13 (sRGB) are shown alike by browsers.

_SRGB_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.003
_XY_TOLERANCE = 0.004
_CURVE_POINTS = 4096


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """A colour space.

    Attributes:
        name: For people.
        chromaticities: White point and primaries.
        transfer: `srgb`, `pq`, `hlg`, or the exponent of a power law that gives linear light.
    """

    name: str
    chromaticities: Chromaticities
    transfer: Literal["srgb", "pq", "hlg"] | float

    @property
    def is_hdr(self) -> bool:
        """Whether it has a high dynamic range."""
        return self.transfer in ("pq", "hlg")

    @property
    def is_srgb(self) -> bool:
        """Whether it is sRGB but for rounding."""
        return self.transfer == "srgb" and _are_close(self.chromaticities, BT709)

    def icc_profile(self) -> bytes:
        """Return an ICC profile of this space, which must not be HDR."""
        return _icc_profile(self)

    def to_linear_srgb(self) -> Matrix:
        """Return the 3x3 matrix from its linear light to that of sRGB, which may be negative."""
        to_xyz = xyz_matrix(self.chromaticities, adapt_to=_D65)
        return np.asarray(np.linalg.solve(xyz_matrix(BT709, adapt_to=_D65), to_xyz))


ADOBE_RGB_SPACE = ColorSpace("Adobe RGB (1998)", ADOBE_RGB, 563 / 256)


def of_code_points(primaries: int, transfer: int) -> ColorSpace | None:
    """Return the space of two numbers of H.273; None if it is sRGB, unspecified or unknown."""
    name, chromaticities = PRIMARIES.get(primaries, ("BT.709", BT709))
    if transfer == _PQ:
        return ColorSpace(f"{name} PQ", chromaticities, "pq")
    if transfer == _HLG:
        return ColorSpace(f"{name} HLG", chromaticities, "hlg")
    gamma = _GAMMAS.get(transfer)
    if gamma is not None:
        return ColorSpace(f"{name}, gamma {gamma:g}", chromaticities, gamma)
    space = ColorSpace(name, chromaticities, "srgb")
    return None if space.is_srgb else space


def of_png_chunks(chunks: dict[bytes, bytes]) -> ColorSpace | None:
    """Return the space that cICP names, or gAMA and cHRM; None if it is sRGB or unspecified."""
    cicp = chunks.get(b"cICP", b"")
    if len(cicp) >= 2:
        return of_code_points(cicp[0], cicp[1])
    if b"sRGB" in chunks:
        return None
    gama, chrm = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    gamma = struct.unpack_from(">I", gama)[0] / 100_000 if len(gama) >= 4 else None
    chromaticities = BT709
    if len(chrm) >= 32:
        values = tuple(value / 100_000 for value in struct.unpack_from(">8I", chrm))
        if not _are_close(values, BT709) and _is_possible(values):
            chromaticities = values
    transfer: Literal["srgb"] | float = "srgb"
    if gamma is not None and 0.1 <= gamma <= 10:
        # 1/2.2 is what programs write for sRGB; with other primaries it is meant literally.
        is_srgb = abs(gamma - _SRGB_GAMMA) < _GAMMA_TOLERANCE and chromaticities is BT709
        transfer = "srgb" if is_srgb else 1 / gamma
    if transfer == "srgb" and chromaticities is BT709:
        return None
    described = "sRGB's curve" if transfer == "srgb" else f"gamma {transfer:.3g}"
    if _are_close(chromaticities, ADOBE_RGB) and transfer != "srgb":
        return ColorSpace("Adobe RGB (1998)", chromaticities, transfer)
    return ColorSpace(f"primaries of the file, {described}", chromaticities, transfer)


def _are_close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(abs(x - y) < _XY_TOLERANCE for x, y in zip(a, b, strict=True))


def _is_possible(values: tuple[float, ...]) -> bool:
    """Return whether chromaticities span a triangle around their white point."""
    if not all(0 <= value <= 1 for value in values) or 0 in values[1::2]:
        return False
    try:
        matrix = xyz_matrix(values)  # type: ignore[arg-type]  # eight numbers
    except np.linalg.LinAlgError:
        return False
    return bool(abs(np.linalg.det(matrix)) > 1e-3)


def xyz_matrix(
    chromaticities: Chromaticities, adapt_to: tuple[float, float] | None = None
) -> Matrix:
    """Return the 3x3 matrix from linear light to XYZ, whose Y is 1 for white.

    Args:
        chromaticities: Of the white point and the primaries.
        adapt_to: The white point (x, y) to adapt to by Bradford's transform; None: D50, as ICC
            profiles use it.
    """
    white_x, white_y, *rest = chromaticities
    points = np.array(rest).reshape(3, 2)
    primaries = np.stack([points[:, 0], points[:, 1], 1 - points.sum(axis=1)]) / points[:, 1]
    white = _white(white_x, white_y)
    matrix = primaries * np.linalg.solve(primaries, white)
    target = _D50 if adapt_to is None else _white(*adapt_to)
    scale = (_BRADFORD @ target) / (_BRADFORD @ white)
    return np.asarray(np.linalg.solve(_BRADFORD, scale[:, None] * (_BRADFORD @ matrix)))


def _white(x: float, y: float) -> Matrix:
    return np.array([x / y, 1.0, (1 - x - y) / y])


_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50 = np.array([0.9642, 1.0, 0.8249])


@lru_cache(maxsize=16)
def _icc_profile(space: ColorSpace) -> bytes:
    """Return a display profile, version 2.4, of a matrix and one curve for all channels."""
    name = space.name.encode("ascii", "replace") + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    columns = xyz_matrix(space.chromaticities).T
    curve = _curve_tag(space.transfer)
    tags = [
        (b"desc", description),
        (b"cprt", b"text\0\0\0\0" + b"No copyright\0"),
        (b"wtpt", _xyz_tag(_D50)),
        *((kind, _xyz_tag(column)) for kind, column in
          zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)),
        *((kind, curve) for kind in (b"rTRC", b"gTRC", b"bTRC")),
    ]  # fmt: skip
    position = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for kind, content in tags:
        table += kind + struct.pack(">II", position + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = (
        struct.pack(">I4sI4s4s4s", position + len(body), b"\0\0\0\0", 0x02400000, b"mntr",
                    b"RGB ", b"XYZ ")
        + struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
        + b"acsp"
        + bytes(28)
        + struct.pack(">3i", *(round(value * 65536) for value in _D50))
    )  # fmt: skip
    return header.ljust(128, b"\0") + table + body


def _xyz_tag(values: Matrix) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _curve_tag(transfer: str | float) -> bytes:
    if transfer == "srgb":
        x = np.linspace(0, 1, _CURVE_POINTS)
        levels = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
        points = (levels * 65535 + 0.5).astype(">u2").tobytes()
        return b"curv\0\0\0\0" + struct.pack(">I", _CURVE_POINTS) + points
    gamma = float(transfer)
    if abs(gamma * 256 - round(gamma * 256)) < 0.05:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    x = np.linspace(0, 1, _CURVE_POINTS)
    points = (x**gamma * 65535 + 0.5).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", _CURVE_POINTS) + points
