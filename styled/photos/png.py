"""PNG, in 16 bits too: Pillow writes no more than 8 of each colour."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from styled.photos.metadata import as_png_text
from styled.photos.picture import Levels, Picture

_BAND_BYTES = 1 << 20
_COMPRESSION_LEVEL = 6


def save_png(picture: Picture) -> bytes:
    """Have Pillow write all but the pixels, and those too where they have 8 bits."""
    options = replace(picture, xmp=b"").described()
    if picture.xmp or picture.iptc:
        texts = PngImagePlugin.PngInfo()
        if picture.xmp:
            texts.add_itxt("XML:com.adobe.xmp", picture.xmp.decode("utf-8", "replace"))
        if picture.iptc:
            texts.add_text(*as_png_text(picture.iptc), zip=True)
        options["pnginfo"] = texts
    file = BytesIO()
    if not picture.is_deep:
        picture.image().save(file, "PNG", **options)
        return file.getvalue()
    Image.new(picture.mode, (1, 1)).save(file, "PNG", **options)
    return _with_pixels(file.getvalue(), picture.levels)


_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels
_PNG_FILTERS = (1, 2, 4)  # Sub, Up, Paeth: PNG, third edition, section 9.2


def _with_pixels(shell: bytes, levels: Levels) -> bytes:
    """Return a PNG of one pixel with another size and 16-bit pixels."""
    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    out = BytesIO()
    out.write(shell[:8])
    position = 8
    while position < len(shell):
        length, kind = struct.unpack_from(">I4s", shell, position)
        body = shell[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IDAT":
            _write_pixels(out, levels)
            continue
        _write_chunk(out, kind, header if kind == b"IHDR" else body)
    return out.getvalue()


def _write_pixels(out: BytesIO, levels: Levels) -> None:
    height, width, channels = levels.shape
    pixel_bytes = 2 * channels
    compressor = zlib.compressobj(_COMPRESSION_LEVEL)
    rows = max(1, _BAND_BYTES // (width * pixel_bytes))
    above = np.zeros((1, width * pixel_bytes), dtype=np.uint8)
    for top in range(0, height, rows):
        band = levels[top : top + rows].astype(">u2").view(np.uint8)
        band = band.reshape(len(band), width * pixel_bytes)
        filtered = _filtered(band, np.concatenate([above, band[:-1]]), pixel_bytes)
        above = band[-1:]
        if packed := compressor.compress(filtered):
            _write_chunk(out, b"IDAT", packed)
    _write_chunk(out, b"IDAT", compressor.flush())


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> bytes:
    """Return each row by the filter that leaves the smallest differences, after its number."""
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, pixel_bytes:], corner[:, pixel_bytes:] = (
        rows[:, :-pixel_bytes],
        above[:, :-pixel_bytes],
    )
    a, b, c = left.astype(np.int16), above.astype(np.int16), corner.astype(np.int16)
    estimate = a + b - c
    to_a, to_b, to_c = np.abs(estimate - a), np.abs(estimate - b), np.abs(estimate - c)
    nearest = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))
    choices = np.stack([rows - left, rows - above, rows - nearest])
    costs = np.abs(choices.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = costs.argmin(axis=0)
    chosen = choices[best, np.arange(len(rows))]
    numbers = np.array(_PNG_FILTERS, dtype=np.uint8)[best]
    return np.concatenate([numbers[:, None], chosen], axis=1).tobytes()


def _write_chunk(out: BytesIO, kind: bytes, body: bytes) -> None:
    out.write(struct.pack(">I", len(body)) + kind + body)
    out.write(struct.pack(">I", zlib.crc32(kind + body)))
