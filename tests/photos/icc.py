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
    primaries = zip((b"rXYZ", b"gXYZ", b"bXYZ"), ADOBE_RGB_TO_XYZ.T, strict=True)
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.19921875))
    tags = {name: xyz(*column) for name, column in primaries} | curves
    return icc_profile(b"mntr", b"RGB ", b"XYZ ", tags)


def adobe_rgb_to_srgb(rgb: tuple[int, int, int]) -> np.ndarray:
    linear = (np.array(rgb) / 255) ** 2.19921875
    linear = np.clip(np.linalg.inv(SRGB_TO_XYZ) @ ADOBE_RGB_TO_XYZ @ linear, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(curved * 255)


def cmyk_profile() -> bytes:
    """A press whose every ink is neutral: each takes away a quarter of the lightness."""
    corners = b"".join(
        bytes((round(255 * (1 - bin(inks).count("1") / 4)), 128, 128)) for inks in range(16)
    )
    identity = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + identity * 4 + corners + identity * 3
    return icc_profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut, b"A2B1": lut})
