"""Writes PNG, also with 16-bit colours: Pillow writes no more than 8 bits."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from styled.photos.iptc import PNG_KEY, as_png_text
from styled.photos.output_image import Levels, OutputImage

_BAND_BYTES = 1 << 20
_COMPRESSION_LEVEL = 6


def save_png(picture: OutputImage) -> bytes:
    """Return the bytes of a PNG. Pillow writes all of it but 16-bit pixels."""
    options = replace(picture, xmp=b"").save_options()
    if picture.xmp or picture.iptc or picture.texts:
        texts = PngImagePlugin.PngInfo()
        for key, text in picture.texts:
            add = texts.add_text if _is_latin1(text) else texts.add_itxt
            add(key, text)
        if picture.xmp:
            texts.add_itxt("XML:com.adobe.xmp", picture.xmp.decode("utf-8", "replace"))
        if picture.iptc:
            texts.add_text(PNG_KEY, as_png_text(picture.iptc), zip=True)
        options["pnginfo"] = texts
    file = BytesIO()
    if not picture.is_sixteen_bit:
        picture.image().save(file, "PNG", **options)
        return file.getvalue()
    Image.new(picture.mode, (1, 1)).save(file, "PNG", **options)
    return _replace_pixels(file.getvalue(), picture.levels)


def _is_latin1(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


_PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels
_PNG_FILTERS = (1, 2, 4)  # Sub, Up, Paeth: PNG, third edition, section 9.2


def _replace_pixels(template: bytes, levels: Levels) -> bytes:
    """Return the PNG `template` with its size and its pixels replaced by those of 16-bit levels."""
    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOR_TYPES[channels], 0, 0, 0)
    out = BytesIO()
    out.write(template[:8])
    position = 8
    while position < len(template):
        length, kind = struct.unpack_from(">I4s", template, position)
        body = template[position + 8 : position + 8 + length]
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
        filtered = _filter_rows(band, np.concatenate([above, band[:-1]]), pixel_bytes)
        above = band[-1:]
        if packed := compressor.compress(filtered):
            _write_chunk(out, b"IDAT", packed)
    _write_chunk(out, b"IDAT", compressor.flush())


def _filter_rows(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> bytes:
    """Filter each row by the filter with the smallest differences; its number precedes the row."""
    left, upper_left = np.zeros_like(rows), np.zeros_like(rows)
    left[:, pixel_bytes:], upper_left[:, pixel_bytes:] = (
        rows[:, :-pixel_bytes],
        above[:, :-pixel_bytes],
    )
    a, b, c = left.astype(np.int16), above.astype(np.int16), upper_left.astype(np.int16)
    estimate = a + b - c
    to_a, to_b, to_c = np.abs(estimate - a), np.abs(estimate - b), np.abs(estimate - c)
    nearest = np.where(
        (to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, upper_left)
    )
    candidates = np.stack([rows - left, rows - above, rows - nearest])
    costs = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = costs.argmin(axis=0)
    chosen = candidates[best, np.arange(len(rows))]
    filter_types = np.array(_PNG_FILTERS, dtype=np.uint8)[best]
    return np.concatenate([filter_types[:, None], chosen], axis=1).tobytes()


def _write_chunk(out: BytesIO, kind: bytes, body: bytes) -> None:
    out.write(struct.pack(">I", len(body)) + kind + body)
    out.write(struct.pack(">I", zlib.crc32(kind + body)))
