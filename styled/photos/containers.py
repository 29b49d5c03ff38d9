"""Structure of image files: which format a file has, and whether it is complete.

Pillow decodes many truncated files without an error (a JPEG whose tail is all zeros comes out
grey, a PNG without its last chunks lacks its orientation). These checks read only the outer
structure, and so tell a file that is still being copied from a damaged one before a pixel is
decoded.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import Any, Protocol, overload

_WINDOW_BYTES = 1 << 16


class Bytes(Protocol):
    """The part of the interface of `bytes` that the checks below use."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...
    def find(self, sub: bytes, start: int = ..., /) -> int: ...


class FileView:
    """The bytes of an open file, read on demand: a check needs only a few pages of them.

    If the file shrinks meanwhile, reads return fewer bytes. With a memory map the process would
    be killed.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        """Give access to the first `size` bytes of the file."""
        self._descriptor = descriptor
        self._size = size
        self._window = b""
        self._window_start = 0

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...
    def __getitem__(self, at: int | slice, /) -> int | bytes:
        if isinstance(at, int):
            return self._read(at, 1)[0]
        start, stop, _ = at.indices(self._size)
        return self._read(start, max(0, stop - start))

    def find(self, sub: bytes, start: int = 0, /) -> int:
        """Return a position of `sub` at or after `start`, -1 if none. Not always the first one."""
        # The last window comes first: mostly the end marker is searched for, and mostly it is
        # there.
        last = max(start, self._size - _WINDOW_BYTES)
        in_last_window = self[last : self._size].find(sub)
        if in_last_window >= 0:
            return last + in_last_window
        while start < last:
            offset = self[start : start + _WINDOW_BYTES + len(sub)].find(sub)
            if offset >= 0:
                return start + offset
            start += _WINDOW_BYTES
        return -1

    def _read(self, start: int, count: int) -> bytes:
        if count > _WINDOW_BYTES:
            return os.pread(self._descriptor, count, start)
        offset = start - self._window_start
        if offset < 0 or offset + count > len(self._window):
            self._window = os.pread(self._descriptor, _WINDOW_BYTES, start)
            self._window_start, offset = start, 0
        return self._window[offset : offset + count]


def view_of(descriptor: int, size: int) -> Bytes:
    """Return the first `size` bytes of a file: as `bytes` if they are few, else as a `FileView`."""
    if size <= _WINDOW_BYTES:
        return os.pread(descriptor, size, 0)
    return FileView(descriptor, size)


def _unpack(layout: str, data: Bytes, position: int) -> tuple[Any, ...]:
    return struct.unpack(layout, data[position : position + struct.calcsize(layout)])


def _search(pattern: re.Pattern[bytes], data: Bytes, position: int) -> tuple[int, int] | None:
    """Find the next match of a two-byte marker; return its second byte and its end position."""
    if isinstance(data, bytes):
        match = pattern.search(data, position)
        return None if match is None else (match[1][0], match.end())
    while position < len(data) - 1:
        window = data[position : position + _WINDOW_BYTES]
        if match := pattern.search(window):
            return match[1][0], position + match.end()
        position += max(1, len(window) - 1)  # a marker may span two windows
    return None


# The magic bytes of each format; "?" stands for any byte.
_MAGICS: tuple[tuple[str, bytes], ...] = (
    ("jpeg", b"\xff\xd8\xff"),
    ("png", b"\x89PNG\r\n\x1a\n"),
    ("tiff", b"II*\0"),
    ("tiff", b"MM\0*"),
    ("tiff", b"II+\0"),
    ("tiff", b"MM\0+"),
    ("webp", b"RIFF????WEBP"),
    ("gif", b"GIF87a"),
    ("gif", b"GIF89a"),
    ("avif", b"\0\0\0?ftypavif"),
    ("avif", b"\0\0\0?ftypavis"),
    ("bmp", b"BM"),
)


# HEIC and AVIF share a container. It begins with its major brand and its compatible brands.
_HEIF_BRANDS = frozenset({b"mif1", b"msf1"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_ALL_BRANDS = _HEIF_BRANDS | _HEIC_BRANDS | _AVIF_BRANDS
_MAX_BRANDS = 32


def format_of(data: Bytes) -> str | None:
    """Return the format whose magic bytes `data` starts with, or None."""
    if data[4:8] == b"ftyp" and len(data) >= 12:
        return _format_of_brands(data)
    for name, magic in _MAGICS:
        if len(data) >= len(magic) and _matches(data, magic):
            return name
    return None


def _format_of_brands(data: Bytes) -> str | None:
    length = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MAX_BRANDS)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, length, 4))]
    if brands[0] in _HEIF_BRANDS:
        return next((f for f in map(_format_of_brand, brands) if f), "avif")
    return _format_of_brand(brands[0])


def _format_of_brand(brand: bytes) -> str | None:
    if brand in _AVIF_BRANDS:
        return "avif"
    return "heic" if brand in _HEIC_BRANDS else None


def could_become_picture(data: bytes) -> bool:
    """Return whether `data` is so short that more bytes could complete a format's magic."""
    if data[4:8] == b"ftyp" and len(data) < 12:
        return any(brand.startswith(data[8:]) for brand in _ALL_BRANDS)
    return any(len(data) < len(magic) and _matches(data, magic) for _, magic in _MAGICS)


MAX_PARTS, MAX_BLOCKS = 20_000, 400_000
"""Most structural parts of a file, and most blocks of a GIF frame, that are checked: a file may
consist of millions of tiny ones. One with more does not count as truncated; its decoder decides."""


def is_truncated(data: Bytes, format: str) -> bool:
    """Return whether a file ends before its own structure says so.

    A file with an invalid structure is not truncated: decoding will report what is wrong with it.
    """
    try:
        return _CHECKS[format](data)
    except (struct.error, IndexError, OverflowError):  # a field lies beyond the end
        return True


def _matches(data: Bytes, magic: bytes) -> bool:
    head = data[: len(magic)]
    return all(expected in (byte, ord("?")) for byte, expected in zip(head, magic, strict=False))


_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
_JPEG_SEGMENT = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # restart markers are not segments
_JPEG_START_OF_SCAN = 0xDA
_JPEG_END_OF_IMAGE = 0xD9
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})


def _jpeg_is_truncated(data: Bytes) -> bool:
    # Segments are skipped by their length: an EXIF thumbnail is a whole JPEG in itself,
    # whose end-of-image marker must not be taken for the photo's.
    position = 2
    for _ in range(MAX_PARTS):
        if (match := _search(_JPEG_MARKER, data, position)) is None:
            return True
        marker, position = match
        if marker not in _JPEG_WITHOUT_LENGTH:
            (length,) = _unpack(">H", data, position)
            position += length
        if marker == _JPEG_START_OF_SCAN:
            return data.find(b"\xff\xd9", position) < 0
    return False


MAX_SCANS = 200
"""A progressive JPEG has about ten. For each one the decoder passes over the whole image."""

MAX_SEGMENTS = 100_000

MAX_EXIF_SEGMENTS = 100
"""One is usual. Pillow joins the segments, which takes quadratic time."""


def find_excess(data: bytes, format: str) -> str | None:
    """Return what a file has so many of that decoding it might never end, or None."""
    if format != "jpeg":
        return None
    segments = scans = exif_segments = 0
    position = 2
    while match := _JPEG_SEGMENT.search(data, position):
        position = match.end()
        marker = match[1][0]
        segments += 1
        if marker == _JPEG_END_OF_IMAGE:
            break
        scans += marker == _JPEG_START_OF_SCAN
        exif_segments += data.startswith(b"Exif", position + 2)
        if segments > MAX_SEGMENTS:
            return f"more than {MAX_SEGMENTS} segments"
        if scans > MAX_SCANS:
            return f"more than {MAX_SCANS} scans"
        if exif_segments > MAX_EXIF_SEGMENTS:
            return f"more than {MAX_EXIF_SEGMENTS} EXIF segments"
        if marker not in _JPEG_WITHOUT_LENGTH and position + 2 <= len(data):
            position += struct.unpack_from(">H", data, position)[0]
    return None


def _png_is_truncated(data: Bytes) -> bool:
    position = 8
    for _ in range(MAX_PARTS):
        length, kind = _unpack(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return bool(position > len(data))
        if not kind.isalpha():
            # A copy that reserves its space first has zeros where nothing is written yet.
            return bool(kind == b"\0\0\0\0")
    return False


def _gif_is_truncated(data: Bytes) -> bool:
    position = 13 + _gif_palette_bytes(data[10])
    for _ in range(MAX_PARTS):
        kind = data[position : position + 1]
        if kind == b"!":
            position += 2
        elif kind == b",":
            position += 11 + _gif_palette_bytes(data[position + 9])
        else:
            return not kind  # otherwise the trailer, or an invalid block
        for _ in range(MAX_BLOCKS):
            length = data[position]
            position += 1 + length
            if not length:
                break
        else:
            return False
    return False


def _gif_palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp_is_truncated(data: Bytes) -> bool:
    (length,) = _unpack("<I", data, 4)
    return bool(len(data) < 8 + length)


_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})


def _bmp_is_truncated(data: Bytes) -> bool:
    length, _, _, header_size = _unpack("<IIII", data, 2)
    # A text that starts with "BM" is not an incomplete bitmap.
    return header_size in _BMP_HEADER_SIZES and len(data) < length


def _avif_is_truncated(data: Bytes) -> bool:
    position = 0
    kinds = set()
    for _ in range(MAX_PARTS):
        if position >= len(data):
            break
        length, kind = _unpack(">I4s", data, position)
        if length == 1:  # a 64-bit length follows
            (length,) = _unpack(">Q", data, position + 8)
        if length < 8:  # 0: to the end of the file; others below 8 are invalid
            return False
        kinds.add(kind)
        position += length
    return position > len(data) or b"meta" not in kinds


# TIFF: bytes of one value of each field type, and the fields that are checked.
_TIFF_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_TIFF_LAST_BASELINE_TAG = 532
_TIFF_ICC_PROFILE = 34675
_TIFF_PIXEL_SPANS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_TIFF_UNSIGNED = {3: "H", 4: "I", 16: "Q"}


def _tiff_is_truncated(data: Bytes) -> bool:
    """Check the first page only: the others are not used."""
    order = "<" if data[:2] == b"II" else ">"
    is_big_tiff = b"+" in data[2:4]
    word, word_bytes, entry_count = ("Q", 8, "Q") if is_big_tiff else ("I", 4, "H")
    (directory,) = _unpack(order + word, data, word_bytes)
    (entries,) = _unpack(order + entry_count, data, directory)
    first = directory + struct.calcsize(entry_count)
    entry_bytes = 4 + 2 * word_bytes
    if first + entries * entry_bytes + word_bytes > len(data):
        return True
    values: dict[int, tuple[int, ...]] = {}
    for entry in range(first, first + entries * entry_bytes, entry_bytes):
        tag, kind, count = _unpack(f"{order}HH{word}", data, entry)
        length = count * (_TIFF_TYPE_BYTES[kind] if kind < len(_TIFF_TYPE_BYTES) else 0)
        position = entry + 4 + word_bytes
        if length > word_bytes:
            (position,) = _unpack(order + word, data, position)
        if tag <= _TIFF_LAST_BASELINE_TAG or tag == _TIFF_ICC_PROFILE:
            # Private fields are not checked: editors often damage them, and they do not matter.
            if position + length > len(data):
                return True
            is_span = any(tag in pair for pair in _TIFF_PIXEL_SPANS)
            if is_span and kind in _TIFF_UNSIGNED and count <= MAX_PARTS:
                layout = f"{order}{count}{_TIFF_UNSIGNED[kind]}"
                values[tag] = _unpack(layout, data, position)
    return any(
        offset + length > len(data)
        for offsets, lengths in _TIFF_PIXEL_SPANS
        for offset, length in zip(values.get(offsets, ()), values.get(lengths, ()), strict=False)
    )


_CHECKS: dict[str, Callable[[Bytes], bool]] = {
    "jpeg": _jpeg_is_truncated,
    "png": _png_is_truncated,
    "gif": _gif_is_truncated,
    "webp": _webp_is_truncated,
    "bmp": _bmp_is_truncated,
    "avif": _avif_is_truncated,
    "heic": _avif_is_truncated,
    "tiff": _tiff_is_truncated,
}
