"""Takes PNG files apart: the chunks of the picture for the decoder, and what they say beside it.

The decoder gets no texts and profiles, so that oversized or damaged ones can't cost the picture.

Source: PNG, third edition (2025).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IMAGE_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT"})
_MAX_CHUNKS = 1_000_000
MAX_UNPACKED_BYTES = 8 << 20
_MAX_UNPACKED_IN_ALL = 32 << 20

TEXT_KEYS = ("Title", "Author", "Description", "Copyright", "Creation Time", "Disclaimer",
             "Warning", "Source", "Comment")  # fmt: skip
"""Predefined keywords of texts that are copied to a painting; Software is replaced."""


@dataclass(slots=True)
class PngChunks:
    """What a PNG file says beside its picture.

    Attributes:
        picture: The file with the chunks of its picture only.
        ancillary: The first chunk of each other kind.
        texts: Texts by key, as bytes: Latin-1, or UTF-8 if the key is in `unicode_keys`.
        unicode_keys: Keys of international texts.
        bit_depth: Bits per channel.
        skipped: Whether a text or profile was damaged or too long.
        is_damaged: Whether the checksum of a chunk of the picture is wrong.
    """

    picture: bytes = b""
    ancillary: dict[bytes, bytes] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    unicode_keys: set[str] = field(default_factory=set)
    bit_depth: int = 8
    skipped: bool = False
    is_damaged: bool = False

    def profile(self) -> bytes | None:
        """Return the ICC profile; None if there is none, or it is damaged or too long."""
        content = self.ancillary.get(b"iCCP")
        if content is None:
            return None
        _, _, packed = content.partition(b"\0")
        return unpacked(packed[1:]) if packed[:1] == b"\0" else None

    def dpi(self) -> tuple[float, float] | None:
        """Return the resolution in dots per inch, None if there is none."""
        content = self.ancillary.get(b"pHYs", b"")
        if len(content) < 9:
            return None
        x, y, unit = struct.unpack_from(">IIB", content)
        return (x * 0.0254, y * 0.0254) if unit == 1 and x and y else None


def read_chunks(data: bytes) -> PngChunks:
    """Take a PNG file apart; chunks with wrong checksums are used if they are texts or profiles."""
    result = PngChunks()
    kept = [SIGNATURE]
    budget = _MAX_UNPACKED_IN_ALL
    for kind, start, end in _chunks(data):
        if kind in _IMAGE_CHUNKS:
            kept.append(data[start - 8 : end + 4])
            checksum = data[end : end + 4]
            if len(checksum) == 4:
                expected = zlib.crc32(memoryview(data)[start - 4 : end])
                result.is_damaged |= expected != int.from_bytes(checksum, "big")
            if kind == b"IHDR" and end - start >= 9:
                result.bit_depth = data[start + 8]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            budget -= _read_text(kind, data[start:end], result, budget)
        else:
            result.ancillary.setdefault(kind, data[start:end])
    result.picture = b"".join(kept)
    return result


def has_all_pixels(picture: bytes) -> bool:
    """Return whether the compressed data of a PNG gives all rows, of a file without its end.

    Args:
        picture: The chunks of the picture, from `read_chunks`.
    """
    width, height, bits, color_type, _, _, interlace = struct.unpack_from(">IIBBBBB", picture, 16)
    pixel_bits = bits * _CHANNELS.get(color_type, 1)
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    needed = 0
    for x, y, step_x, step_y in passes:
        columns = max(0, -(-(width - x) // step_x))
        rows = max(0, -(-(height - y) // step_y))
        needed += rows * (1 + (columns * pixel_bits + 7) // 8) if columns else 0
    decompressor = zlib.decompressobj()
    for kind, start, end in _chunks(picture):
        packed = picture[start:end] if kind == b"IDAT" else b""
        try:
            while packed and needed > 0:
                needed -= len(decompressor.decompress(packed, _STEP_BYTES))
                packed = decompressor.unconsumed_tail
        except zlib.error:
            return False
    return needed <= 0


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip
_STEP_BYTES = 1 << 20


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Return the kind of each chunk, and start and end of its content."""
    position = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if not kind.isalpha():
            return
        yield kind, position + 8, min(end, len(data))
        position = end + 4
        if kind == b"IEND":
            return


def _read_text(kind: bytes, content: bytes, result: PngChunks, budget: int) -> int:
    """Add one text; return how many bytes it takes."""
    name, separator, text = content.partition(b"\0")
    key = name.decode("latin-1")
    if not separator or key in result.texts:
        return 0
    is_packed = kind == b"zTXt"
    if kind == b"zTXt":
        text = text[1:]
    elif kind == b"iTXt":
        is_packed = text[:1] == b"\1"
        _language, _, rest = text[2:].partition(b"\0")
        _translated, _, text = rest.partition(b"\0")
    if is_packed:
        limit = max(0, min(budget, MAX_UNPACKED_BYTES))
        unpacked_text = unpacked(text, limit) if limit else None
        if unpacked_text is None:
            result.skipped = True
            return limit  # what unpacking it may have cost
        text = unpacked_text
    result.texts[key] = text
    if kind == b"iTXt":
        result.unicode_keys.add(key)
    return len(text)


def unpacked(packed: bytes, limit: int = MAX_UNPACKED_BYTES) -> bytes | None:
    """Return what was compressed by zlib; None if it is damaged or longer than `limit`."""
    decompressor = zlib.decompressobj()
    try:
        data = decompressor.decompress(packed, max(limit, 1))
    except zlib.error:
        return None
    return data if decompressor.eof else None
