"""The segments of JPEG files: metadata, and signs of hostile files.

Source: ITU-T T.81 (1992), annex B; JFIF 1.02; Adobe's XMP specification, part 3 (2020), 1.1.3.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator

from styled.degradation import Degradation

_SEGMENT = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # restart markers are not segments
_PROGRESSIVE_FRAME = 0xC2
_START_OF_SCAN, _END_OF_IMAGE, _COMMENT = 0xDA, 0xD9, 0xFE
_APP0, _APP1, _APP2, _APP13 = 0xE0, 0xE1, 0xE2, 0xED
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"

MAX_SEGMENT_BYTES = 65_533
MAX_SCANS = 200
"""A progressive JPEG has about ten. For each one the decoder passes over the whole image."""

MAX_SEGMENTS = 100_000

MAX_EXIF_SEGMENTS = 100
"""One is usual. Pillow joins the segments, which takes quadratic time."""

_MAX_EXTENSION_BYTES = 64 << 20
_MAX_PHOTOSHOP_BYTES = 64 << 20


def find_excess(data: bytes) -> str | None:
    """Return what a file has so many of that decoding it might never end, or None."""
    scans = exif_segments = 0
    for segments, (marker, position) in enumerate(_markers(data), start=1):
        scans += marker == _START_OF_SCAN
        exif_segments += data.startswith(b"Exif", position + 2)
        if segments > MAX_SEGMENTS:
            return f"more than {MAX_SEGMENTS} segments"
        if scans > MAX_SCANS:
            return f"more than {MAX_SCANS} scans"
        if exif_segments > MAX_EXIF_SEGMENTS:
            return f"more than {MAX_EXIF_SEGMENTS} EXIF segments"
    return None


def repaired(data: bytes) -> bytes:
    """Return a file without the bytes that some programs write before its first segment."""
    match = _SEGMENT.search(data, 2)
    return data if match is None or match.start() == 2 else data[:2] + data[match.start() :]


def with_end_marker(data: bytes) -> bytes:
    """Return a truncated file without its last, incomplete segment, and with an end marker."""
    for marker, position in _markers(data):
        if marker in _WITHOUT_LENGTH:
            continue
        lengths = data[position : position + 2]
        if len(lengths) < 2 or position + int.from_bytes(lengths, "big") > len(data):
            data = data[: position - 2]
            break
    return data.removesuffix(b"\xff") + b"\xff\xd9"


def missing_scans(data: bytes) -> str | None:
    """Return what is missing if a progressive JPEG has not all of its scans, otherwise None.

    Each scan adds some coefficients, or one more bit to them (T.81, G.1.1). Decoders show what
    there is, and say nothing.
    """
    left: dict[int, list[int]] = {}  # for each component the bits that each coefficient lacks
    for marker, position in _markers(data):
        if marker == _PROGRESSIVE_FRAME:
            count = data[position + 7] if position + 7 < len(data) else 0
            components = data[position + 8 : position + 8 + 3 * count : 3]
            left = {component: [1] * 64 for component in components}
        elif marker == _START_OF_SCAN and left:
            count = data[position + 2] if position + 2 < len(data) else 0
            parameters = data[position + 3 + 2 * count : position + 6 + 2 * count]
            if len(parameters) < 3:
                break
            first, last, approximation = parameters
            for component in data[position + 3 : position + 3 + 2 * count : 2]:
                if component in left and last < 64:
                    bits = approximation & 15
                    left[component][first : last + 1] = [bits] * (last + 1 - first)
    return "its last scans are missing" if any(map(any, left.values())) else None


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Return each marker up to the end of the image, and the position behind it."""
    position = 2
    while match := _SEGMENT.search(data, position):
        position = match.end()
        marker = match[1][0]
        yield marker, position
        if marker == _END_OF_IMAGE:
            return
        if marker not in _WITHOUT_LENGTH and position + 2 <= len(data):
            position += struct.unpack_from(">H", data, position)[0]


class JpegSegments:
    """The metadata in the segments before the first scan.

    Attributes:
        exif: EXIF data, without its marker.
        xmp: The main XMP packet.
        xmp_extension: The second part of the XMP data, if the first one names it and it is whole.
        photoshop: Photoshop's resources, which may contain IPTC.
        comment: The first comment.
        dpi: The resolution in the JFIF header, in dots per inch.
        has_gain_map: Whether a segment announces a gain map (ISO 21496-1).
        degraded: What was damaged.
    """

    def __init__(self, data: bytes) -> None:
        """Read the segments of a JPEG file."""
        self.exif = self.xmp = self.photoshop = self.comment = b""
        self.dpi: tuple[float, float] | None = None
        self.has_gain_map = False
        self.degraded: tuple[Degradation, ...] = ()
        photoshop: list[bytes] = []
        photoshop_bytes = 0
        parts: dict[bytes, dict[int, bytes]] = {}
        lengths: dict[bytes, int] = {}
        for marker, position in _markers(data):
            if marker == _START_OF_SCAN:
                break
            if marker in _WITHOUT_LENGTH or position + 2 > len(data):
                continue
            (length,) = struct.unpack_from(">H", data, position)
            content = data[position + 2 : position + length]
            if marker == _APP1 and content.startswith(_EXIF):
                self.exif += content[len(_EXIF) :]
            elif marker == _APP1 and content.startswith(_XMP) and not self.xmp:
                self.xmp = content[len(_XMP) :]
            elif marker == _APP1 and content.startswith(_XMP_EXTENSION):
                _add_part(content[len(_XMP_EXTENSION) :], parts, lengths)
            elif marker == _APP13 and content.startswith(_PHOTOSHOP):
                photoshop_bytes += len(content)
                if photoshop_bytes <= _MAX_PHOTOSHOP_BYTES:
                    photoshop.append(content[len(_PHOTOSHOP) :])
            elif marker == _COMMENT and not self.comment:
                self.comment = content
            elif marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 12:
                self.dpi = _jfif_dpi(*struct.unpack_from(">BHH", content, 7))
            elif marker == _APP2 and content.startswith(_ISO_GAIN_MAP):
                self.has_gain_map = True
        self.photoshop = b"".join(photoshop)
        self.xmp_extension = b""
        for guid, chunks in parts.items():
            if guid in self.xmp:
                extension = b"".join(chunk for _, chunk in sorted(chunks.items()))
                if len(extension) == lengths[guid]:
                    self.xmp_extension = extension
        if b"HasExtendedXMP" in self.xmp and not self.xmp_extension:
            message = "the second part of the XMP data is missing or damaged and was left out"
            self.degraded = (Degradation("metadata", message),)


def _add_part(
    content: bytes, parts: dict[bytes, dict[int, bytes]], lengths: dict[bytes, int]
) -> None:
    """Add one segment of extended XMP: GUID, length of the whole, offset of this part, data."""
    if len(content) < 40:
        return
    guid, (length, offset) = content[:32], struct.unpack_from(">II", content, 32)
    if length <= _MAX_EXTENSION_BYTES:
        lengths[guid] = length
        parts.setdefault(guid, {})[offset] = content[40:]


def _jfif_dpi(unit: int, x: int, y: int) -> tuple[float, float] | None:
    if unit not in (1, 2) or not x or not y:
        return None
    scale = 2.54 if unit == 2 else 1.0
    return x * scale, y * scale


def xmp_segments(xmp: bytes, extension: bytes) -> bytes:
    """Return the segments of an XMP packet and its second part, which may be empty."""
    segments = [_segment(_APP1, _XMP + xmp)] if xmp else []
    guid = extension_guid(extension)
    room = MAX_SEGMENT_BYTES - len(_XMP_EXTENSION) - 40
    for offset in range(0, len(extension), room):
        head = _XMP_EXTENSION + guid + struct.pack(">II", len(extension), offset)
        segments.append(_segment(_APP1, head + extension[offset : offset + room]))
    return b"".join(segments)


def extension_guid(extension: bytes) -> bytes:
    """Return the name by which the main packet refers to its second part."""
    return hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()


def photoshop_segment(resources: bytes) -> bytes:
    """Return the segment of Photoshop's resources."""
    return _segment(_APP13, _PHOTOSHOP + resources)


def comment_segment(comment: bytes) -> bytes:
    """Return the segment of a comment."""
    return _segment(_COMMENT, comment)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
