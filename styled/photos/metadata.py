"""What a photo's file says besides its pixels: EXIF with GPS, XMP, IPTC, resolution.

All of it is taken over, with a few exceptions that would no longer be true of a painting:
the orientation (it is upright now), the thumbnail, the size in pixels, and whatever tells
where in the file something lies.
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

DAMAGE = (
    SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError,
    OverflowError, ZeroDivisionError, RuntimeError, struct.error, EOFError,
)  # fmt: skip
"""What Pillow raises on EXIF data that makes no sense."""

# Of the main directory, what is about the photo and not about the layout of its file.
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
    """What can be taken over from a photo to its painting.

    Attributes:
        exif: As JPEG has it, without the marker `Exif`; empty: none.
        xmp: The packet.
        iptc: IPTC-IIM records.
        dpi: Dots per inch, horizontally and vertically.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None


def metadata_of(image: ImageFile.ImageFile) -> tuple[Metadata, list[Degradation]]:
    """Return what a loaded picture's file says, and a note for what was damaged."""
    degraded = []
    exif = b""
    try:
        exif = kept_exif(exif_of(image))
    except DAMAGE:
        degraded.append(Degradation("metadata", "the EXIF data is damaged and was ignored"))
    return Metadata(exif, _xmp_of(image), _iptc_of(image), _dpi_of(image)), degraded


def exif_of(image: ImageFile.ImageFile) -> Image.Exif:
    """Return a picture's EXIF data.

    Raises:
        Exception: one of `DAMAGE`.
    """
    exif = image.getexif()
    if not exif and "exif" in image.info:
        # The JPEG reader has looked for the resolution already and hidden what it met.
        exif = Image.Exif()
        exif.load(image.info["exif"])
    return exif


def kept_exif(found: Image.Exif) -> bytes:
    """Return what of some EXIF data is true of a painting too.

    Raises:
        Exception: one of `DAMAGE`.
    """
    kept = Image.Exif()
    for tag in _KEPT_TAGS:
        if tag in found:
            kept[tag] = _undecoded(found[tag])
    for directory in _KEPT_DIRECTORIES:
        if entries := _entries(found, directory):
            kept[directory] = entries
    return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else b""


def _entries(exif: Image.Exif, directory: int) -> dict[int, object]:
    entries = exif.get_ifd(directory).items()
    return {tag: _undecoded(value) for tag, value in entries if tag != IFD.Interop}


def _typed(entries: dict[int, object]) -> dict[int, object]:
    """Have Pillow write bytes as of undefined type, as the EXIF directory has them.

    It takes all `bytes` whose tag it does not know for numbers of one byte.
    """
    return {
        tag: (bytearray(value),) if isinstance(value, bytes) else value
        for tag, value in entries.items()
    }


def _undecoded(value: object) -> object:
    return _Text(value) if isinstance(value, str) else value


class _Text(str):
    """A text of EXIF: Pillow reads its bytes as Latin-1, but would write none but ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "replace") -> bytes:
        """Return the bytes that it was read from, whatever they are."""
        return super().encode("latin-1", "replace")


def painted_exif(
    metadata: Metadata, size: tuple[int, int], *, srgb: bool, longest: int | None = None
) -> tuple[Image.Exif, list[Degradation]]:
    """Return EXIF data for a painting, and a note for what had to be left out.

    Args:
        metadata: The photo's.
        size: The painting's, in pixels.
        srgb: Whether its colours are sRGB.
        longest: The most bytes that the file has room for.
    """
    degraded = []
    try:
        painted = _described(metadata)
        if metadata.exif:
            found = Image.Exif()
            found.load(metadata.exif)
            for tag in _KEPT_TAGS & set(found):
                painted[tag] = _undecoded(found[tag])
            if location := _entries(found, IFD.GPSInfo):
                painted[IFD.GPSInfo] = location
            detail = _typed(_entries(found, IFD.Exif))
            detail[Base.ExifImageWidth], detail[Base.ExifImageHeight] = size
            detail[Base.ColorSpace] = _SRGB if srgb else _UNCALIBRATED
            painted[IFD.Exif] = detail
            for tag in _LARGE_TAGS:
                if longest is not None and len(painted.tobytes()) > longest and tag in detail:
                    del detail[tag]
                    message = f"the EXIF entry {Base(tag).name} is too long and was left out"
                    degraded.append(Degradation("metadata", message))
        if longest is None or len(painted.tobytes()) <= longest:
            return painted, degraded
        degraded.append(Degradation("metadata", "the EXIF data is too long and was left out"))
    except DAMAGE:
        degraded.append(Degradation("metadata", "the EXIF data can't be written and was left out"))
    return _described(metadata), degraded


def _described(metadata: Metadata) -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Software] = SOFTWARE
    if metadata.dpi is not None:
        x, y = metadata.dpi
        exif[Base.XResolution], exif[Base.YResolution] = x, y
        exif[Base.ResolutionUnit] = _INCHES
    return exif


def as_photoshop_segment(iptc: bytes) -> bytes:
    """Return a JPEG segment APP13 that holds IPTC records, as Photoshop writes it."""
    body = b"Photoshop 3.0\0" + _resource(iptc)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def as_png_text(iptc: bytes) -> tuple[str, str]:
    """Return the key and the text by which ImageMagick and exiftool know IPTC in a PNG."""
    resource = _resource(iptc)
    digits = resource.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return _IPTC_TEXT, f"\niptc\n{len(resource):8d}\n{lines}\n"


def _resource(iptc: bytes) -> bytes:
    padding = b"\0" * (len(iptc) % 2)
    return struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + padding


def _in_resources(blob: bytes) -> bytes:
    """Return the IPTC records among Photoshop's resources."""
    start = blob.find(b"8BIM\x04\x04")
    if start < 0 or len(blob) < start + 12:
        return b""
    name_bytes = (blob[start + 6] + 2) & ~1  # its length counts, and all is even
    at = start + 6 + name_bytes
    length = int.from_bytes(blob[at : at + 4], "big")
    return blob[at + 4 : at + 4 + length]


def _xmp_of(image: ImageFile.ImageFile) -> bytes:
    found = image.info.get("xmp") or image.info.get(_XMP_TEXT) or b""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        found = image.tag_v2.get(_XMP_TAG, b"")
    if isinstance(found, str):
        found = found.encode("utf-8", "surrogatepass")
    if not isinstance(found, bytes):
        return b""
    return _XMP_ORIENTATION.sub(_upright, found.rstrip(b"\0"))


def _upright(match: re.Match[bytes]) -> bytes:
    before, after = match[1] or match[3], match[2] or match[4]
    return before + b"1" + after


def _iptc_of(image: ImageFile.ImageFile) -> bytes:
    found: object = b""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        resources = image.info.get("photoshop")
        found = resources.get(_IPTC_RESOURCE, b"") if isinstance(resources, Mapping) else b""
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        # As it lies in the file: many programs call it 32-bit numbers, of which Pillow keeps one.
        found = image.tag_v2._tagdata.get(_IPTC_TAG, b"")
        found = found.rstrip(b"\0") if image.tag_v2.tagtype.get(_IPTC_TAG) == LONG else found
    elif isinstance(image, PngImagePlugin.PngImageFile):
        text = image.info.get(_IPTC_TEXT)
        if isinstance(text, str):
            try:
                _, _, digits = text.strip().split("\n", 2)  # a title, the length, and the rest
                found = _in_resources(bytes.fromhex(digits))
            except ValueError:
                found = b""
    return found if isinstance(found, bytes) else b""


def _dpi_of(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except DAMAGE:
        return None
    least, most = _DPI_LIMITS
    is_sane = all(math.isfinite(value) and least <= value <= most for value in (x, y))
    return (x, y) if is_sane else None
