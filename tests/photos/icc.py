"""ICC profiles made by hand: a header, a tag table and the tags (ICC.1:2001-04)."""

from __future__ import annotations

import struct

import numpy as np


def icc_profile(device: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    description = b"Made for a test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(description)) + description + bytes(78),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        **tags,
    }
    position = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", position + len(body), len(content))
        body += padded
    header = (
        struct.pack(
            ">I4sI4s4s4s", position + len(body), b"\0\0\0\0", 0x02400000, device, space, pcs
        )
        + struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
        + b"acsp"
        + bytes(28)
        + struct.pack(">3i", 63190, 65536, 54061)
    )
    return header.ljust(128, b"\0") + table + body


def xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in (x, y, z)))


def gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


# Columns: red, green, blue primaries as XYZ relative to D50.
ADOBE_RGB_TO_XYZ = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def adobe_rgb_profile() -> bytes:
    return matrix_profile(ADOBE_RGB_TO_XYZ, gamma(2.19921875))


def adobe_rgb_to_srgb(rgb: tuple[int, int, int]) -> np.ndarray:
    linear = (np.array(rgb) / 255) ** 2.19921875
    linear = np.clip(np.linalg.inv(SRGB_TO_XYZ) @ ADOBE_RGB_TO_XYZ @ linear, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(curved * 255)


def cmyk_profile() -> bytes:
    """Return a CMYK profile with neutral inks, each of which takes a quarter of the lightness."""
    return _table_profile(b"prtr", b"CMYK", [1 - bin(inks).count("1") / 4 for inks in range(16)])


def lut_profile() -> bytes:
    """Return an RGB scanner profile with neutral channels; each adds a third of the lightness."""
    return _table_profile(b"scnr", b"RGB ", [bin(lights).count("1") / 3 for lights in range(8)])


def _table_profile(device: bytes, space: bytes, lightness: list[float]) -> bytes:
    """Return a profile with a table for the corners of a space, for conversion from it only."""
    corners = b"".join(bytes((round(255 * value), 128, 128)) for value in lightness)
    channels, identity = len(lightness).bit_length() - 1, bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes((channels, 3, 2, 0)) + matrix
    lut += identity * channels + corners + identity * 3
    return icc_profile(device, space, b"Lab ", {b"A2B0": lut, b"A2B1": lut})


# --- the colour spaces that photographers work in


def parametric(*values: float) -> bytes:
    """Return a parametric curve; with 5 values a power law with a linear segment, as in sRGB."""
    packed = struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))
    kind = {1: 0, 3: 1, 4: 2, 5: 3, 7: 4}[len(values)]
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + packed


def points(values: np.ndarray) -> bytes:
    """Return a curve given by points in [0, 1]."""
    levels = np.round(values * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(levels)) + levels.tobytes()


def matrix_profile(to_xyz: np.ndarray, curve: bytes) -> bytes:
    """Return a display profile with the same curve for red, green and blue."""
    primaries = zip((b"rXYZ", b"gXYZ", b"bXYZ"), to_xyz.T, strict=True)
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return icc_profile(b"mntr", b"RGB ", b"XYZ ", {name: xyz(*c) for name, c in primaries} | curves)


def gray_profile(curve: bytes) -> bytes:
    """Return a profile for grey images."""
    return icc_profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve})


DISPLAY_P3_TO_XYZ = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
PROPHOTO_TO_XYZ = np.array(
    [[0.79767, 0.13519, 0.03134], [0.28804, 0.71188, 0.00009], [0.00000, 0.00000, 0.82491]]
)

SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def exact(curve: tuple[float, ...], levels: np.ndarray) -> np.ndarray:
    """Return the linear light of levels in [0, 1], by a gamma or by five parameters."""
    if len(curve) == 1:
        return np.asarray(levels ** curve[0])
    power, a, b, c, d = curve
    return np.where(levels >= d, np.maximum(a * levels + b, 0) ** power, c * levels)


def exact_inverse(curve: tuple[float, ...], light: np.ndarray) -> np.ndarray:
    """Return the levels of linear light: the inverse of `exact`."""
    if len(curve) == 1:
        return np.asarray(light ** (1 / curve[0]))
    power, a, b, c, d = curve
    return np.where(light >= c * d, (light ** (1 / power) - b) / a, light / c)


def as_fixed(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return parameters rounded as in a file: to steps of 1/65536."""
    return tuple(round(value * 65536) / 65536 for value in values)
