"""Writes TIFF, in strips: Pillow writes no 16-bit colours, and changes EXIF data.

Source: TIFF revision 6.0 (1992), sections 2 (structure), 14 (predictor) and 18 (alpha);
Adobe's Technical Note on Deflate (2002).
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import accumulate
from typing import Literal

from styled.errors import ConfigError
from styled.photos.exif import (
    ICC_PROFILE,
    IPTC,
    PHOTOSHOP,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
    Exif,
    number_field,
    rational_field,
    text_field,
    to_bytes,
)
from styled.photos.metadata import SOFTWARE
from styled.photos.output_image import Levels, OutputImage
from styled.photos.tiff_tags import BYTE, LONG, SHORT, UNDEFINED, Field

_STRIP_BYTES = 1 << 20
_COMPRESSION_LEVEL = 6
_MAX_BYTES = 2**32 - 2**26

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _CHANNELS, _ROWS_PER_STRIP, _STRIP_BYTE_COUNTS = 273, 277, 278, 279
_SOFTWARE, _PREDICTOR, _EXTRA_SAMPLES = 305, 317, 338
_DEFLATE, _HORIZONTAL_DIFFERENCING, _INCHES, _UNASSOCIATED_ALPHA = 8, 2, 2, 2
_PHOTOMETRICS = {"L": 1, "LA": 1, "RGB": 2, "RGBA": 2, "CMYK": 5}


def save_tiff(picture: OutputImage) -> bytes:
    """Return the bytes of a TIFF with lossless compression, in the byte order of its EXIF data.

    Raises:
        ConfigError: The image does not fit into the 4 GB of a TIFF.
    """
    levels = picture.levels
    height, width, channels = levels.shape
    if levels.nbytes > _MAX_BYTES:
        raise ConfigError(
            f"{width} x {height} pixels of {levels.itemsize * 8} bits do not fit into a tiff file, "
            "which holds at most 4 GB",
            "Set `output.format` to png, or `output.bits` to 8.",
            "Ask for a smaller size.",
        )
    exif = picture.exif or Exif()
    order = exif.order
    rows = max(1, _STRIP_BYTES // (width * channels * levels.itemsize))
    strips = [
        zlib.compress(_differences(levels[top : top + rows], order), _COMPRESSION_LEVEL)
        for top in range(0, height, rows)
    ]
    fields = {
        _WIDTH: number_field(order, LONG, width),
        _HEIGHT: number_field(order, LONG, height),
        _BITS: number_field(order, SHORT, *(levels.itemsize * 8,) * channels),
        _COMPRESSION: number_field(order, SHORT, _DEFLATE),
        _PHOTOMETRIC: number_field(order, SHORT, _PHOTOMETRICS[picture.mode]),
        _CHANNELS: number_field(order, SHORT, channels),
        _ROWS_PER_STRIP: number_field(order, LONG, rows),
        _STRIP_BYTE_COUNTS: number_field(order, LONG, *(len(strip) for strip in strips)),
        _PREDICTOR: number_field(order, SHORT, _HORIZONTAL_DIFFERENCING),
        _SOFTWARE: text_field(SOFTWARE),
    }
    if picture.mode.endswith("A"):
        fields[_EXTRA_SAMPLES] = number_field(order, SHORT, _UNASSOCIATED_ALPHA)
    if picture.dpi and X_RESOLUTION not in exif.image:
        x, y = picture.dpi
        fields[X_RESOLUTION] = rational_field(order, x)
        fields[Y_RESOLUTION] = rational_field(order, y)
        fields[RESOLUTION_UNIT] = number_field(order, SHORT, _INCHES)
    for tag, kind, data in (
        (ICC_PROFILE, UNDEFINED, picture.icc),
        (XMP, BYTE, picture.xmp),
        (IPTC, UNDEFINED, picture.iptc),
        (PHOTOSHOP, UNDEFINED, picture.photoshop),
    ):
        if data:
            fields[tag] = Field(kind, len(data), data)
    header = b""
    for _ in range(2):  # the length of the header does not depend on the offsets in it
        starts = accumulate((len(strip) for strip in strips[:-1]), initial=len(header))
        fields[_STRIP_OFFSETS] = number_field(order, LONG, *starts)
        header = to_bytes(replace(exif, image={**exif.image, **fields}))
    return b"".join([header, *strips])


def _differences(levels: Levels, order: str) -> bytes:
    """Return the difference of each level to its left neighbour; it compresses better."""
    differences = levels.copy()
    differences[:, 1:] -= levels[:, :-1]
    byte_order: Literal["<", ">"] = "<" if order == "<" else ">"
    return differences.astype(differences.dtype.newbyteorder(byte_order)).tobytes()
