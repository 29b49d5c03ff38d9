"""Reads BMP files whose channels have unusual bit fields, such as 4-4-4; Pillow reads all others.

Source: Microsoft's documentation of BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER.
"""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

_BIT_FIELDS = (3, 6)  # BI_BITFIELDS, BI_ALPHABITFIELDS
_HEADER_WITH_MASKS, _HEADER_WITH_ALPHA_MASK = 52, 56


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels.

    Raises:
        ValueError: The header is invalid.
    """
    width, height = struct.unpack_from("<ii", data, 18)
    if width <= 0 or height == 0:
        raise ValueError("its header gives no size")
    return width, abs(height)


def read_bitfields(data: bytes) -> tuple[Image.Image, int]:
    """Return a BMP with bit fields as an RGB image, RGBA if it has an alpha field; and its bits.

    Raises:
        ValueError: The header is invalid, or pixels are missing.
    """
    width, height = size_of(data)
    (pixel_offset,) = struct.unpack_from("<I", data, 10)
    (header_size,) = struct.unpack_from("<I", data, 14)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if bits not in (16, 32) or compression not in _BIT_FIELDS:
        raise ValueError("its layout is not one of bit fields")
    masks = list(struct.unpack_from("<III", data, 54))
    if header_size >= _HEADER_WITH_ALPHA_MASK or compression == _BIT_FIELDS[1]:
        (alpha,) = struct.unpack_from("<I", data, 66)
        if alpha:
            masks.append(alpha)
    if not all(masks[:3]):
        raise ValueError("a bit field is empty")
    stride = (width * bits // 8 + 3) & ~3
    rows = np.frombuffer(data, dtype=np.uint8, count=stride * height, offset=pixel_offset)
    pixels = rows.reshape(height, stride)[:, : width * bits // 8]
    words = np.ascontiguousarray(pixels).view("<u2" if bits == 16 else "<u4")
    channels = [_scaled(words, mask) for mask in masks]
    levels = np.stack(channels, axis=-1)
    if struct.unpack_from("<i", data, 22)[0] > 0:
        levels = levels[::-1]  # rows are stored from the bottom up
    bits_per_channel = max(mask.bit_count() for mask in masks[:3])
    return Image.fromarray(np.ascontiguousarray(levels)), bits_per_channel


def _scaled(words: np.ndarray, mask: int) -> np.ndarray:
    """Return the levels of one field, scaled to 0..255."""
    shift = (mask & -mask).bit_length() - 1
    highest = mask >> shift
    values = (words.astype(np.uint64) & mask) >> shift
    return ((values * 255 + highest // 2) // highest).astype(np.uint8)
