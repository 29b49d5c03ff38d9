"""Writes TIFF, in strips: Pillow writes no 16-bit colours, and no EXIF if it compresses.

Source: TIFF revision 6.0 (1992), sections 2 (structure), 14 (predictor) and 18 (alpha);
Adobe's Technical Note on Deflate (2002).
"""

from __future__ import annotations

import zlib
from itertools import accumulate

from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from styled.errors import ConfigError
from styled.photos.metadata import EXIF_ERRORS, SOFTWARE
from styled.photos.output_image import Levels, OutputImage

_HEADER = b"II*\0\10\0\0\0"  # the directory is at byte 8
_STRIP_BYTES = 1 << 20
_COMPRESSION_LEVEL = 6
_MAX_BYTES = 2**32 - 2**26

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _CHANNELS, _ROWS_PER_STRIP, _STRIP_BYTE_COUNTS = 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _SOFTWARE, _PREDICTOR = 282, 283, 296, 305, 317
_EXTRA_SAMPLES, _XMP, _IPTC, _ICC = 338, 700, 33723, 34675
_DEFLATE, _HORIZONTAL_DIFFERENCING, _INCHES, _UNASSOCIATED_ALPHA = 8, 2, 2, 2
_PHOTOMETRICS = {"L": 1, "LA": 1, "RGB": 2, "RGBA": 2, "CMYK": 5}
_BYTE, _UNDEFINED = 1, 7
_TYPES = {_XMP: _BYTE, _IPTC: _UNDEFINED, _ICC: _UNDEFINED}


def save_tiff(picture: OutputImage) -> bytes:
    """Return the bytes of a little-endian TIFF with lossless compression.

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
    rows = max(1, _STRIP_BYTES // (width * channels * levels.itemsize))
    strips = [
        zlib.compress(_differences(levels[top : top + rows]), _COMPRESSION_LEVEL)
        for top in range(0, height, rows)
    ]
    counts = [len(strip) for strip in strips]
    fields: dict[int, object] = {
        _WIDTH: width,
        _HEIGHT: height,
        _BITS: (levels.itemsize * 8,) * channels,
        _COMPRESSION: _DEFLATE,
        _PHOTOMETRIC: _PHOTOMETRICS[picture.mode],
        _STRIP_OFFSETS: (0, *accumulate(counts[:-1])),  # Pillow adds the end of the directory
        _CHANNELS: channels,
        _ROWS_PER_STRIP: rows,
        _STRIP_BYTE_COUNTS: tuple(counts),
        _PREDICTOR: _HORIZONTAL_DIFFERENCING,
        _SOFTWARE: SOFTWARE,
    }
    if picture.mode.endswith("A"):
        fields[_EXTRA_SAMPLES] = _UNASSOCIATED_ALPHA
    if picture.dpi:
        fields[_X_RESOLUTION], fields[_Y_RESOLUTION] = (IFDRational(dpi) for dpi in picture.dpi)
        fields[_RESOLUTION_UNIT] = _INCHES
    for tag, data in ((_ICC, picture.icc), (_XMP, picture.xmp), (_IPTC, picture.iptc)):
        if data:
            fields[tag] = data
    return b"".join([_HEADER, _directory(fields, picture), *strips])


def _differences(levels: Levels) -> bytes:
    """Return the difference of each level to its left neighbour; it compresses better."""
    differences = levels.copy()
    differences[:, 1:] -= levels[:, :-1]
    return differences.astype(differences.dtype.newbyteorder("<")).tobytes()


def _directory(fields: dict[int, object], picture: OutputImage) -> bytes:
    directory = ImageFileDirectory_v2(prefix=b"II")
    if picture.exif is not None:
        try:
            for tag, value in picture.exif.items():
                directory[tag] = value
            directory.tobytes(len(_HEADER))
        except EXIF_ERRORS:  # it fits into other formats, but not into a TIFF
            directory = ImageFileDirectory_v2(prefix=b"II")
    for tag, value in fields.items():
        if tag in _TYPES:
            directory.tagtype[tag] = _TYPES[tag]
        directory[tag] = value
    return bytes(directory.tobytes(len(_HEADER)))
