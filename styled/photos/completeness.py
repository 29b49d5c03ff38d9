"""Tells whether an image file is complete, by its segments, chunks, boxes or directories.

Pillow decodes many truncated files without an error (a JPEG whose tail is all zeros comes out
grey, a PNG without its last chunks lacks its orientation). These checks distinguish an upload in
progress from a damaged file, without decoding a pixel.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

from styled.photos.file_view import WINDOW_BYTES, ByteSource
from styled.photos.tiff_pages import find_picture
from styled.photos.tiff_tags import Directory, TiffReader


def _unpack(layout: str, data: ByteSource, position: int) -> tuple[Any, ...]:
    return struct.unpack(layout, data[position : position + struct.calcsize(layout)])


def _search(pattern: re.Pattern[bytes], data: ByteSource, position: int) -> tuple[int, int] | None:
    """Find the next match of a two-byte marker.

    Returns:
        Its second byte and the position after it; None if there is none.
    """
    if isinstance(data, bytes):
        match = pattern.search(data, position)
        return None if match is None else (match[1][0], match.end())
    while position < len(data) - 1:  # `re` can't search a file view
        window = data[position : position + WINDOW_BYTES]
        if match := pattern.search(window):
            return match[1][0], position + match.end()
        position += max(1, len(window) - 1)  # a marker may span two windows
    return None


MAX_PARTS, MAX_BLOCKS = 20_000, 400_000
"""Maximum numbers of segments, chunks or boxes of a file, and of blocks of a GIF frame, to check.

A hostile file may have millions. A file with more counts as complete: its decoder decides.
"""


def is_truncated(data: ByteSource, format: str) -> bool:
    """Return whether a file ends before the end that its structure declares.

    A file also counts as truncated if a field or an offset in it leads beyond its end. With any
    other invalid structure it counts as complete: decoding reports what is wrong with it.

    Args:
        data: The bytes of the file.
        format: One that `styled.photos.formats` knows; KeyError for others.
    """
    try:
        return _CHECKS[format](data)
    except (struct.error, IndexError, OverflowError, ValueError):  # a field lies beyond the end
        return True


_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
_JPEG_START_OF_SCAN = 0xDA
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})  # TEM, RST0 to RST7, SOI, EOI


def _jpeg_is_truncated(data: ByteSource) -> bool:
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
            # After the first scan, any end-of-image marker is that of the photo.
            return data.find(b"\xff\xd9", position) < 0
    return False


def _png_is_truncated(data: ByteSource) -> bool:
    position = 8  # after the signature
    for _ in range(MAX_PARTS):
        length, kind = _unpack(">I4s", data, position)
        position += 12 + length  # with length, kind and checksum
        if kind == b"IEND":
            return bool(position > len(data))
        if not kind.isalpha():
            # Programs that preallocate a file leave zeros where nothing is written yet.
            return bool(kind == b"\0\0\0\0")
    return False


def _gif_is_truncated(data: ByteSource) -> bool:
    position = 13 + _gif_palette_bytes(data[10])  # after signature and screen descriptor
    for _ in range(MAX_PARTS):
        kind = data[position : position + 1]
        if kind == b"!":
            position += 2
        elif kind == b",":
            # Image descriptor (10 bytes), palette, code size of LZW.
            position += 11 + _gif_palette_bytes(data[position + 9])
        else:
            return not kind  # nothing: the file ends here; else the trailer, or an invalid block
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


def _webp_is_truncated(data: ByteSource) -> bool:
    (length,) = _unpack("<I", data, 4)
    return bool(len(data) < 8 + length)


_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})


def _bmp_is_truncated(data: ByteSource) -> bool:
    if data[:2] != b"BM":  # a bitmap without a file header does not say how long it is
        return False
    length, _, _, header_size = _unpack("<IIII", data, 2)
    # The size of the header must be valid too: a text may start with "BM".
    return header_size in _BMP_HEADER_SIZES and len(data) < length


def _boxes_are_truncated(data: ByteSource, *, needs_meta: bool = True) -> bool:
    """Check a file that consists of boxes (ISO/IEC 14496-12): AVIF, HEIC, JPEG XL, CR3.

    Args:
        data: The bytes of the file.
        needs_meta: Whether it is incomplete without a `meta` box, which describes the picture.
    """
    position = 0
    kinds = set()
    for _ in range(MAX_PARTS):
        if position >= len(data):
            break
        length, kind = _unpack(">I4s", data, position)
        if length == 1:  # a 64-bit length follows
            (length,) = _unpack(">Q", data, position + 8)
        if length < 8:  # 0: the box extends to the end of the file; 2 to 7 are invalid
            return False
        kinds.add(kind)
        position += length
    return position > len(data) or (needs_meta and b"meta" not in kinds)


_TIFF_LAST_BASELINE_TAG = 532
_TIFF_ICC_PROFILE = 34675
_TIFF_PIXEL_TAGS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles


def _tiff_is_truncated(data: ByteSource) -> bool:
    """Check only the page that will be decoded."""
    reader = TiffReader(data, layout_only=True)
    try:
        first = reader.read(reader.first_offset)
    except ValueError:
        return True
    picture = find_picture(reader)
    if picture is None:
        # No directory describes an image. If fields of the first one lie beyond the end of the
        # file, they are not written yet; otherwise the decoder reports it.
        return bool(first.missing)
    return _lacks_fields(picture.directory) or _lacks_pixels(picture.directory, len(data))


def _lacks_fields(directory: Directory) -> bool:
    # Only fields that decoding needs: editors often damage others.
    return any(
        tag <= _TIFF_LAST_BASELINE_TAG or tag == _TIFF_ICC_PROFILE for tag in directory.missing
    )


def _lacks_pixels(directory: Directory, file_bytes: int) -> bool:
    return any(
        offset + length > file_bytes
        for offsets_tag, lengths_tag in _TIFF_PIXEL_TAGS
        for offset, length in zip(
            directory.numbers(offsets_tag), directory.numbers(lengths_tag), strict=False
        )
    )


def _raw_is_truncated(data: ByteSource) -> bool:
    """Check camera raws that are TIFF files or consist of boxes; the decoder checks others."""
    if data[4:8] == b"ftyp":
        return _boxes_are_truncated(data, needs_meta=False)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_is_truncated(data)
    return False


def _jxl_is_truncated(data: ByteSource) -> bool:
    # A bare codestream has no boxes.
    return data[:2] != b"\xff\x0a" and _boxes_are_truncated(data, needs_meta=False)


_CHECKS: dict[str, Callable[[ByteSource], bool]] = {
    "jpeg": _jpeg_is_truncated,
    "png": _png_is_truncated,
    "gif": _gif_is_truncated,
    "webp": _webp_is_truncated,
    "bmp": _bmp_is_truncated,
    "avif": _boxes_are_truncated,
    "heic": _boxes_are_truncated,
    "tiff": _tiff_is_truncated,
    "raw": _raw_is_truncated,
    "jxl": _jxl_is_truncated,
}
