"""IPTC-IIM records, in Photoshop's resources and in the text chunks of PNG files.

Source: IPTC-IIM 4.2; Adobe's Photoshop File Formats Specification (image resources); the profiles
that ImageMagick and ExifTool write into PNG text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_RESOURCE = 0x0404
_RECORD_MARK = 0x1C
PNG_KEY = "Raw profile type iptc"


def photoshop_resource(iptc: bytes) -> bytes:
    """Return Photoshop's resource that holds IPTC records."""
    padding = b"\0" * (len(iptc) % 2)
    return struct.pack(">4sHHI", b"8BIM", _RESOURCE, 0, len(iptc)) + iptc + padding


def kept_resources(blob: bytes) -> bytes:
    """Return Photoshop's resources that hold for a painting, too: rights, links, IPTC's digest."""
    kept = []
    for resource, start, end in _resources(blob):
        if resource in _KEPT_RESOURCES:
            kept.append(blob[start:end] + b"\0" * ((end - start) % 2))
    return b"".join(kept)


_KEPT_RESOURCES = frozenset({0x040A, 0x040B, 0x041E, 0x0425})


def _resources(blob: bytes) -> Iterator[tuple[int, int, int]]:
    """Return number, start and end of each of Photoshop's resources, without padding."""
    position = 0
    while (start := blob.find(b"8BIM", position)) >= 0 and len(blob) >= start + 12:
        (resource,) = struct.unpack_from(">H", blob, start + 4)
        name_bytes = (blob[start + 6] + 2) & ~1  # with its length byte, padded to even
        at = start + 6 + name_bytes
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        yield resource, start, end
        position = end


def iptc_in(blob: bytes) -> bytes:
    """Return the IPTC records in Photoshop's resources, or those that `blob` itself consists of."""
    if blob[:1] == bytes([_RECORD_MARK]):
        return blob
    for resource, start, end in _resources(blob):
        if resource == _RESOURCE:
            name_bytes = (blob[start + 6] + 2) & ~1
            return blob[start + 10 + name_bytes : end]
    return b""


def as_png_text(iptc: bytes) -> str:
    """Return the text of a PNG chunk with the key `PNG_KEY`, as ImageMagick and exiftool use it."""
    resource = photoshop_resource(iptc)
    digits = resource.hex()
    lines = "\n".join(digits[position : position + 72] for position in range(0, len(digits), 72))
    return f"\niptc\n{len(resource):8d}\n{lines}\n"


def raw_profile(text: bytes) -> bytes:
    """Return the bytes that a text holds as title, length and hex digits; b'' if it does not."""
    try:
        _, _, digits = text.strip().split(b"\n", 2)
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""
