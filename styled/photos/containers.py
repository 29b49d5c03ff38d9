"""What a file says about itself: which format it is in, and whether all of it is there.

Pillow decodes many cut files without complaint (a JPEG whose tail is all zeros comes out
grey, a PNG without its last chunks lacks its orientation). These checks read only the
outer structure and so tell "still arriving" from "damaged" before a pixel is decoded.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import Any, Protocol, overload

_WINDOW_BYTES = 1 << 16


class Bytes(Protocol):
    """What the checks below need of a file's bytes."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...
    def find(self, sub: bytes, start: int = ..., /) -> int: ...


class FileView:
    """The bytes of an open file, read as they are needed: a structure takes a few pages of it.

    A file that shrinks meanwhile is short of bytes and no more than that; a memory map would end
    the process.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        """Look at the first `size` bytes of the file."""
        self._descriptor = descriptor
        self._size = size
        self._window = b""
        self._window_at = 0

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
        """Return where `sub` begins at or behind `start`, -1 where it does not."""
        # What is looked for is mostly the end marker, and mostly there.
        last = max(start, self._size - _WINDOW_BYTES)
        at_the_end = self[last : self._size].find(sub)
        if at_the_end >= 0:
            return last + at_the_end
        while start < last:
            found = self[start : start + _WINDOW_BYTES + len(sub)].find(sub)
            if found >= 0:
                return start + found
            start += _WINDOW_BYTES
        return -1

    def _read(self, start: int, count: int) -> bytes:
        if count > _WINDOW_BYTES:
            return os.pread(self._descriptor, count, start)
        offset = start - self._window_at
        if offset < 0 or offset + count > len(self._window):
            self._window = os.pread(self._descriptor, _WINDOW_BYTES, start)
            self._window_at, offset = start, 0
        return self._window[offset : offset + count]


def view_of(descriptor: int, size: int) -> Bytes:
    """Return the first `size` bytes of a file: as they are, or a view where they are many."""
    if size <= _WINDOW_BYTES:
        return os.pread(descriptor, size, 0)
    return FileView(descriptor, size)


def _unpack(form: str, data: Bytes, position: int) -> tuple[Any, ...]:
    return struct.unpack(form, data[position : position + struct.calcsize(form)])


def _search(pattern: re.Pattern[bytes], data: Bytes, position: int) -> tuple[int, int] | None:
    """Return the marker that a pattern of two bytes finds next, and where it ends."""
    if isinstance(data, bytes):
        match = pattern.search(data, position)
        return None if match is None else (match[1][0], match.end())
    while position < len(data) - 1:
        window = data[position : position + _WINDOW_BYTES]
        if match := pattern.search(window):
            return match[1][0], position + match.end()
        position += max(1, len(window) - 1)  # a marker may lie across
    return None


# What a file of each format starts with; "?" stands for any byte.
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


# Two formats in one container, which begins with its brand and those that it goes with.
_HEIF_BRANDS = frozenset({b"mif1", b"msf1"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_ALL_BRANDS = _HEIF_BRANDS | _HEIC_BRANDS | _AVIF_BRANDS
_MOST_BRANDS = 32


def format_of(data: Bytes) -> str | None:
    """Return the format whose magic bytes `data` starts with, or None."""
    if data[4:8] == b"ftyp" and len(data) >= 12:
        return _format_of_brands(data)
    for name, magic in _MAGICS:
        if len(data) >= len(magic) and _agrees(data, magic):
            return name
    return None


def _format_of_brands(data: Bytes) -> str | None:
    length = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS)
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
    return any(len(data) < len(magic) and _agrees(data, magic) for _, magic in _MAGICS)


MOST_PARTS, MOST_BLOCKS = 20_000, 400_000
"""How many parts of a file are gone through, and blocks of a GIF's frame: it may be made of
millions of tiny ones. What has more is not called cut, and its decoder tells."""


def is_cut(data: Bytes, name: str) -> bool:
    """Return whether a file of format `name` ends before its own structure says so.

    A structure that makes no sense is not "cut": decoding will tell what is wrong with it.
    """
    try:
        return _IS_CUT[name](data)
    except (struct.error, IndexError, OverflowError):  # a field lies beyond the end
        return True


def _agrees(data: Bytes, magic: bytes) -> bool:
    head = data[: len(magic)]
    return all(wanted in (byte, ord("?")) for byte, wanted in zip(head, magic, strict=False))


_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
_JPEG_SEGMENT = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # restart markers are no segments
_JPEG_START_OF_SCAN = 0xDA
_JPEG_END_OF_IMAGE = 0xD9
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})


def _jpeg_is_cut(data: Bytes) -> bool:
    # Segments are skipped by their length: an EXIF thumbnail is a whole JPEG in itself,
    # whose end-of-image marker must not be taken for the photo's.
    position = 2
    for _ in range(MOST_PARTS):
        if (found := _search(_JPEG_MARKER, data, position)) is None:
            return True
        marker, position = found
        if marker not in _JPEG_WITHOUT_LENGTH:
            (length,) = _unpack(">H", data, position)
            position += length
        if marker == _JPEG_START_OF_SCAN:
            return data.find(b"\xff\xd9", position) < 0
    return False


MOST_SCANS = 200
"""A progressive JPEG has about ten. Each goes through all of the picture once more."""

MOST_SEGMENTS = 100_000

MOST_EXIF_SEGMENTS = 100
"""One is usual. Pillow joins them, which takes quadratic time."""


def excess_in(data: bytes, found: str) -> str | None:
    """Return what a file has so much of that decoding it might never end, None if nothing."""
    if found != "jpeg":
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
        if segments > MOST_SEGMENTS:
            return f"more than {MOST_SEGMENTS} segments"
        if scans > MOST_SCANS:
            return f"more than {MOST_SCANS} scans"
        if exif_segments > MOST_EXIF_SEGMENTS:
            return f"more than {MOST_EXIF_SEGMENTS} EXIF segments"
        if marker not in _JPEG_WITHOUT_LENGTH and position + 2 <= len(data):
            position += struct.unpack_from(">H", data, position)[0]
    return None


def _png_is_cut(data: Bytes) -> bool:
    position = 8
    for _ in range(MOST_PARTS):
        length, kind = _unpack(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return bool(position > len(data))
        if not kind.isalpha():
            # Zeros are what a copy that reserves its space first has not written yet.
            return bool(kind == b"\0\0\0\0")
    return False


def _gif_is_cut(data: Bytes) -> bool:
    position = 13 + _gif_palette_bytes(data[10])
    for _ in range(MOST_PARTS):
        kind = data[position : position + 1]
        if kind == b"!":
            position += 2
        elif kind == b",":
            position += 11 + _gif_palette_bytes(data[position + 9])
        else:
            return not kind  # else the trailer, or nonsense
        for _ in range(MOST_BLOCKS):
            length = data[position]
            position += 1 + length
            if not length:
                break
        else:
            return False
    return False


def _gif_palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp_is_cut(data: Bytes) -> bool:
    (length,) = _unpack("<I", data, 4)
    return bool(len(data) < 8 + length)


_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})


def _bmp_is_cut(data: Bytes) -> bool:
    length, _, _, header_size = _unpack("<IIII", data, 2)
    # A text that starts with "BM" is not a picture that is still arriving.
    return header_size in _BMP_HEADER_SIZES and len(data) < length


def _avif_is_cut(data: Bytes) -> bool:
    position = 0
    kinds = set()
    for _ in range(MOST_PARTS):
        if position >= len(data):
            break
        length, kind = _unpack(">I4s", data, position)
        if length == 1:  # the length did not fit into 32 bits
            (length,) = _unpack(">Q", data, position + 8)
        if length < 8:  # 0: to the end of the file; the others make no sense
            return False
        kinds.add(kind)
        position += length
    return position > len(data) or b"meta" not in kinds


# TIFF: bytes of one value of each field type, and the fields that the check looks at.
_TIFF_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_TIFF_LAST_BASELINE_TAG = 532
_TIFF_ICC_PROFILE = 34675
_TIFF_PIXEL_SPANS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_TIFF_UNSIGNED = {3: "H", 4: "I", 16: "Q"}


def _tiff_is_cut(data: Bytes) -> bool:
    """Look at the first page only: no other is painted."""
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    word, word_bytes, entry_count = ("Q", 8, "Q") if big else ("I", 4, "H")
    (directory,) = _unpack(order + word, data, word_bytes)
    (entries,) = _unpack(order + entry_count, data, directory)
    first = directory + struct.calcsize(entry_count)
    entry_bytes = 4 + 2 * word_bytes
    if first + entries * entry_bytes + word_bytes > len(data):
        return True
    numbers: dict[int, tuple[int, ...]] = {}
    for entry in range(first, first + entries * entry_bytes, entry_bytes):
        tag, kind, count = _unpack(f"{order}HH{word}", data, entry)
        length = count * (_TIFF_TYPE_BYTES[kind] if kind < len(_TIFF_TYPE_BYTES) else 0)
        position = entry + 4 + word_bytes
        if length > word_bytes:
            (position,) = _unpack(order + word, data, position)
        if tag <= _TIFF_LAST_BASELINE_TAG or tag == _TIFF_ICC_PROFILE:
            # Private fields are often damaged by editing and do not matter here.
            if position + length > len(data):
                return True
            is_span = any(tag in pair for pair in _TIFF_PIXEL_SPANS)
            if is_span and kind in _TIFF_UNSIGNED and count <= MOST_PARTS:
                form = f"{order}{count}{_TIFF_UNSIGNED[kind]}"
                numbers[tag] = _unpack(form, data, position)
    return any(
        offset + length > len(data)
        for offsets, lengths in _TIFF_PIXEL_SPANS
        for offset, length in zip(numbers.get(offsets, ()), numbers.get(lengths, ()), strict=False)
    )


_IS_CUT: dict[str, Callable[[Bytes], bool]] = {
    "jpeg": _jpeg_is_cut,
    "png": _png_is_cut,
    "gif": _gif_is_cut,
    "webp": _webp_is_cut,
    "bmp": _bmp_is_cut,
    "avif": _avif_is_cut,
    "heic": _avif_is_cut,
    "tiff": _tiff_is_cut,
}
