"""Metadata of photos and paintings: EXIF with GPS, XMP, IPTC, resolution.

A painting gets all metadata of its photo, except what would no longer be true: the orientation
(the painting is upright), the thumbnail, the size in pixels, and offsets into the file.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL.ExifTags import IFD, Base
from PIL.TiffTags import LONG

from styled import __version__
from styled.degradation import Degradation

SOFTWARE = f"styled {__version__}"

EXIF_ERRORS = (
    SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError,
    OverflowError, ZeroDivisionError, RuntimeError, struct.error, EOFError,
)  # fmt: skip
"""Exceptions that Pillow raises on invalid EXIF data."""

# Tags of the main directory that describe the photo, not the layout of its file.
_KEPT_TAGS = frozenset(
    {Base.DocumentName, Base.ImageDescription, Base.Make, Base.Model, Base.DateTime, Base.Artist,
     Base.HostComputer, Base.Copyright, Base.Rating, Base.RatingPercent, Base.XPTitle,
     Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject}
)  # fmt: skip
_KEPT_DIRECTORIES = (IFD.Exif, IFD.GPSInfo)
_LARGE_TAGS = (Base.MakerNote, Base.UserComment)
_SRGB, _UNCALIBRATED = 1, 0xFFFF
_INCHES = 2

_IPTC_TAG = 33723
_IPTC_RESOURCE = 0x0404
_IPTC_TEXT = "Raw profile type iptc"
_XMP_TEXT = "XML:com.adobe.xmp"
_XMP_TAG = 700
_DPI_LIMITS = 1.0, 60_000.0

_XMP_ORIENTATION = re.compile(
    rb"""(tiff:Orientation\s*=\s*["'])\s*\d+\s*(["'])"""
    rb"""|(<tiff:Orientation\s*>)\s*\d+\s*(</tiff:Orientation\s*>)"""
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata that is copied from a photo to its painting.

    Attributes:
        exif: EXIF data as in a JPEG, without the `Exif` marker; empty: none.
        xmp: The XMP packet.
        iptc: IPTC-IIM records.
        dpi: Dots per inch, horizontally and vertically.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None


def metadata_of(image: ImageFile.ImageFile) -> tuple[Metadata, list[Degradation]]:
    """Return the metadata of a loaded image, and a note if its EXIF data is damaged."""
    degraded = []
    exif = b""
    try:
        exif = kept_exif(exif_of(image))
    except EXIF_ERRORS:
        degraded.append(Degradation("metadata", "the EXIF data is damaged and was ignored"))
    return Metadata(exif, _xmp_of(image), _iptc_of(image), _dpi_of(image)), degraded


def exif_of(image: ImageFile.ImageFile) -> Image.Exif:
    """Return an image's EXIF data.

    Raises:
        Exception: One of `EXIF_ERRORS`.
    """
    exif = image.getexif()
    if not exif and "exif" in image.info:
        # The JPEG reader has already parsed the data for the resolution, and hidden its errors.
        exif = Image.Exif()
        exif.load(image.info["exif"])
    return exif


def kept_exif(exif: Image.Exif) -> bytes:
    """Return the part of EXIF data that is also true of a painting.

    Raises:
        Exception: One of `EXIF_ERRORS`.
    """
    kept = Image.Exif()
    for tag in _KEPT_TAGS:
        if tag in exif:
            kept[tag] = _as_latin1(exif[tag])
    for directory in _KEPT_DIRECTORIES:
        if entries := _entries(exif, directory):
            kept[directory] = entries
    return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else b""


def _entries(exif: Image.Exif, directory: int) -> dict[int, object]:
    entries = exif.get_ifd(directory).items()
    return {tag: _as_latin1(value) for tag, value in entries if tag != IFD.Interop}


def _with_undefined_type(entries: dict[int, object]) -> dict[int, object]:
    """Make Pillow write `bytes` with type UNDEFINED, which they have in the EXIF directory.

    For unknown tags Pillow would use type BYTE.
    """
    return {
        tag: (bytearray(value),) if isinstance(value, bytes) else value
        for tag, value in entries.items()
    }


def _as_latin1(value: object) -> object:
    return _Latin1Text(value) if isinstance(value, str) else value


class _Latin1Text(str):
    """EXIF text. Pillow decodes it as Latin-1, but would encode it as ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "replace") -> bytes:
        """Return the bytes that the text was decoded from; the arguments are ignored."""
        return super().encode("latin-1", "replace")


def exif_for_painting(
    metadata: Metadata, size: tuple[int, int], *, srgb: bool, max_bytes: int | None = None
) -> tuple[Image.Exif, list[Degradation]]:
    """Return EXIF data for a painting, and a note for each thing that had to be left out.

    Args:
        metadata: The photo's metadata.
        size: Width and height of the painting in pixels.
        srgb: Whether the painting is in sRGB.
        max_bytes: Most bytes of EXIF data that the file can hold; None: any number.
    """
    degraded = []
    try:
        exif = _base_exif(metadata)
        if metadata.exif:
            source = Image.Exif()
            source.load(metadata.exif)
            for tag in _KEPT_TAGS & set(source):
                exif[tag] = _as_latin1(source[tag])
            if gps := _entries(source, IFD.GPSInfo):
                exif[IFD.GPSInfo] = gps
            exif_ifd = _with_undefined_type(_entries(source, IFD.Exif))
            exif_ifd[Base.ExifImageWidth], exif_ifd[Base.ExifImageHeight] = size
            exif_ifd[Base.ColorSpace] = _SRGB if srgb else _UNCALIBRATED
            exif[IFD.Exif] = exif_ifd
            for tag in _LARGE_TAGS:
                if max_bytes is not None and len(exif.tobytes()) > max_bytes and tag in exif_ifd:
                    del exif_ifd[tag]
                    message = f"the EXIF entry {Base(tag).name} is too long and was left out"
                    degraded.append(Degradation("metadata", message))
        if max_bytes is None or len(exif.tobytes()) <= max_bytes:
            return exif, degraded
        degraded.append(Degradation("metadata", "the EXIF data is too long and was left out"))
    except EXIF_ERRORS:
        degraded.append(Degradation("metadata", "the EXIF data can't be written and was left out"))
    return _base_exif(metadata), degraded


def _base_exif(metadata: Metadata) -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Software] = SOFTWARE
    if metadata.dpi is not None:
        x, y = metadata.dpi
        exif[Base.XResolution], exif[Base.YResolution] = x, y
        exif[Base.ResolutionUnit] = _INCHES
    return exif


def as_photoshop_segment(iptc: bytes) -> bytes:
    """Return a JPEG APP13 segment with IPTC records, in Photoshop's format."""
    body = b"Photoshop 3.0\0" + _photoshop_resource(iptc)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def as_png_text(iptc: bytes) -> tuple[str, str]:
    """Return key and value of a PNG text chunk with IPTC, as ImageMagick and exiftool use it."""
    resource = _photoshop_resource(iptc)
    digits = resource.hex()
    lines = "\n".join(digits[position : position + 72] for position in range(0, len(digits), 72))
    return _IPTC_TEXT, f"\niptc\n{len(resource):8d}\n{lines}\n"


def _photoshop_resource(iptc: bytes) -> bytes:
    padding = b"\0" * (len(iptc) % 2)
    return struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + padding


def _iptc_in_resources(blob: bytes) -> bytes:
    """Return the IPTC records in a block of Photoshop resources, b'' if there are none."""
    start = blob.find(b"8BIM\x04\x04")
    if start < 0 or len(blob) < start + 12:
        return b""
    name_bytes = (blob[start + 6] + 2) & ~1  # with its length byte, padded to even
    position = start + 6 + name_bytes
    length = int.from_bytes(blob[position : position + 4], "big")
    return blob[position + 4 : position + 4 + length]


def _xmp_of(image: ImageFile.ImageFile) -> bytes:
    xmp = image.info.get("xmp") or image.info.get(_XMP_TEXT) or b""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        xmp = image.tag_v2.get(_XMP_TAG, b"")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "surrogatepass")
    if not isinstance(xmp, bytes):
        return b""
    return _XMP_ORIENTATION.sub(_reset_orientation, xmp.rstrip(b"\0"))


def _reset_orientation(match: re.Match[bytes]) -> bytes:
    before, after = match[1] or match[3], match[2] or match[4]
    return before + b"1" + after


def _iptc_of(image: ImageFile.ImageFile) -> bytes:
    iptc: object = b""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        resources = image.info.get("photoshop")
        iptc = resources.get(_IPTC_RESOURCE, b"") if isinstance(resources, Mapping) else b""
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        # The raw bytes of the field: many programs declare it as 32-bit numbers, of which Pillow
        # keeps only one.
        iptc = image.tag_v2._tagdata.get(_IPTC_TAG, b"")
        iptc = iptc.rstrip(b"\0") if image.tag_v2.tagtype.get(_IPTC_TAG) == LONG else iptc
    elif isinstance(image, PngImagePlugin.PngImageFile):
        text = image.info.get(_IPTC_TEXT)
        if isinstance(text, str):
            try:
                _, _, digits = text.strip().split("\n", 2)  # title, length, hex digits
                iptc = _iptc_in_resources(bytes.fromhex(digits))
            except ValueError:
                iptc = b""
    return iptc if isinstance(iptc, bytes) else b""


def _dpi_of(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except EXIF_ERRORS:
        return None
    lowest, highest = _DPI_LIMITS
    is_sane = all(math.isfinite(value) and lowest <= value <= highest for value in (x, y))
    return (x, y) if is_sane else None
