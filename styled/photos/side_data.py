"""Reads what a file says beside its pixels: metadata, orientation, colour space.

Each format keeps these in places of its own. Damaged ones are noted, and never cost the picture.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from styled.degradation import Degradation
from styled.photos import color_spaces, iptc
from styled.photos.color_spaces import ColorSpace
from styled.photos.exif import (
    ICC_PROFILE,
    IPTC,
    PHOTOSHOP,
    RESOLUTION_LIMITS,
    XMP,
    Exif,
    read_exif,
)
from styled.photos.heif_boxes import boxes, heif_picture
from styled.photos.jpeg import JpegSegments
from styled.photos.metadata import Metadata
from styled.photos.png_chunks import TEXT_KEYS, PngChunks
from styled.photos.tiff_pages import find_picture
from styled.photos.tiff_tags import LONG, TiffReader
from styled.photos.xmp import XmpDamaged, has_gain_map, xmp_of_painting

Info = Mapping[str | tuple[int, int], object]
"""What Pillow has found in a file."""

_XMP_TEXT = "XML:com.adobe.xmp"
_XMP_PROFILES = ("Raw profile type xmp", "Raw profile type APP1")
_EXIF_PROFILES = ("Raw profile type exif", "Raw profile type APP1")
_IPTC_PROFILES = ("Raw profile type iptc", "Raw profile type 8bim", "Raw profile type APP13")
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_MARK = b"Exif\0\0"

_GAIN_MAP = Degradation(
    "color", "its gain map, for screens of another dynamic range (HDR or SDR), was not used"
)
_DAMAGED_EXIF = Degradation("metadata", "the EXIF data is damaged and was ignored")
_PARTLY_DAMAGED_EXIF = Degradation(
    "metadata", "part of the EXIF data lies outside the file and was left out"
)
_DAMAGED_XMP = Degradation("metadata", "the XMP data is damaged and was left out")


@dataclass(frozen=True, slots=True)
class SideData:
    """What a file says beside its pixels.

    Attributes:
        metadata: What is copied to a painting.
        orientation: EXIF orientation, 1..8.
        icc: The embedded ICC profile; None: there is none; b"": it is damaged.
        space: The colour space that is named in another way than by a profile; None: sRGB.
        degraded: What was damaged.
    """

    metadata: Metadata = field(default_factory=Metadata)
    orientation: int = 1
    icc: bytes | None = None
    space: ColorSpace | None = None
    degraded: tuple[Degradation, ...] = ()


@dataclass(slots=True)
class _Found:
    """What was found in a file, before it is checked."""

    exif: bytes = b""
    reader: TiffReader | None = None
    xmp: bytes = b""
    xmp_extension: bytes = b""
    iptc: bytes = b""
    photoshop: bytes = b""
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()
    icc: bytes | None = None
    space: ColorSpace | None = None
    gain_map: bool = False
    degraded: list[Degradation] = field(default_factory=list)


def read_side_data(
    data: bytes, format: str, info: Info, *, chunks: PngChunks | None = None,
    ignores_orientation: bool = False,
) -> SideData:  # fmt: skip
    """Read what a file says beside its pixels.

    Args:
        data: The bytes of the file.
        format: Its format.
        info: What Pillow has found in it; may be empty.
        chunks: Of a PNG.
        ignores_orientation: Whether the decoder has turned the picture already.
    """
    found = _Found()
    if chunks is not None:
        _find_in_png(chunks, found)
    else:
        _FINDERS.get(format, _find_in_info)(data, info, found)
    degraded = found.degraded
    exif, orientation = _parse_exif(found, degraded)
    if ignores_orientation:
        orientation = 1
    xmp = b""
    try:
        xmp = xmp_of_painting(found.xmp, found.xmp_extension, is_turned=orientation != 1)
    except XmpDamaged:
        degraded.append(_DAMAGED_XMP)
    if found.gain_map or has_gain_map(found.xmp):
        degraded.append(_GAIN_MAP)
    space = found.space
    if found.icc is None and space is None and exif.is_adobe_rgb:
        space = color_spaces.ADOBE_RGB_SPACE
    metadata = Metadata(
        exif=exif, xmp=xmp, iptc=found.iptc, photoshop=found.photoshop,
        dpi=_sane(found.dpi) or _sane(exif.dpi()), comment=found.comment,
        texts=found.texts, is_turned=orientation != 1,
    )  # fmt: skip
    return SideData(metadata, orientation, found.icc, space, tuple(degraded))


def _parse_exif(found: _Found, degraded: list[Degradation]) -> tuple[Exif, int]:
    if found.reader is None and not found.exif:
        return Exif(), 1
    try:
        reader = found.reader or TiffReader(found.exif)
        exif, orientation, is_damaged = read_exif(reader)
    except (ValueError, struct.error):
        degraded.append(_DAMAGED_EXIF)
        return Exif(), 1
    if is_damaged:
        degraded.append(_PARTLY_DAMAGED_EXIF)
    return exif, orientation


def _find_in_jpeg(data: bytes, info: Info, found: _Found) -> None:
    segments = JpegSegments(data)
    found.exif, found.xmp = segments.exif, segments.xmp
    found.xmp_extension, found.comment = segments.xmp_extension, segments.comment
    found.iptc, found.dpi = iptc.iptc_in(segments.photoshop), segments.dpi
    found.photoshop = iptc.kept_resources(segments.photoshop)
    found.gain_map = segments.has_gain_map
    found.icc = _profile_in(info)
    found.degraded += segments.degraded


def _find_in_png(chunks: PngChunks, found: _Found) -> None:
    texts = chunks.texts
    found.exif = chunks.ancillary.get(b"eXIf", b"")
    found.xmp = texts.get(_XMP_TEXT, b"")
    for key in _EXIF_PROFILES:
        content = iptc.raw_profile(texts.get(key, b""))
        if not found.exif and not content.startswith(_XMP_MARK):
            found.exif = content.removeprefix(_EXIF_MARK)
    for key in _XMP_PROFILES:
        content = iptc.raw_profile(texts.get(key, b""))
        if not found.xmp and not content.startswith(_EXIF_MARK):
            found.xmp = content.removeprefix(_XMP_MARK)
    for key in _IPTC_PROFILES:
        found.iptc = found.iptc or iptc.iptc_in(iptc.raw_profile(texts.get(key, b"")))
    found.dpi = chunks.dpi()
    found.texts = tuple(
        (key, texts[key].decode("utf-8" if key in chunks.unicode_keys else "latin-1", "replace"))
        for key in TEXT_KEYS
        if key in texts
    )
    found.space = color_spaces.of_png_chunks(chunks.ancillary)
    if b"iCCP" in chunks.ancillary and b"cICP" not in chunks.ancillary:
        found.icc = chunks.profile() or b""
        found.space = None
    if chunks.skipped:
        message = "a text in it is damaged or too long and was left out"
        found.degraded.append(Degradation("metadata", message))


def _find_in_tiff(data: bytes, info: Info, found: _Found) -> None:
    try:
        reader = TiffReader(data)
        first = reader.read(reader.first_offset)
    except ValueError:
        return
    picture = find_picture(reader)
    found.reader = reader
    fields = {**(picture.directory.fields if picture is not None else {}), **first.fields}
    found.xmp = fields[XMP].data if XMP in fields else b""
    if IPTC in fields:
        # Many programs declare it as 32-bit numbers, which pads it with zeros.
        records = fields[IPTC]
        found.iptc = records.data.rstrip(b"\0") if records.type == LONG else records.data
    if PHOTOSHOP in fields:
        found.iptc = found.iptc or iptc.iptc_in(fields[PHOTOSHOP].data)
        found.photoshop = iptc.kept_resources(fields[PHOTOSHOP].data)
    of_picture = picture.directory.fields if picture is not None else {}
    if ICC_PROFILE in of_picture or ICC_PROFILE in fields:
        found.icc = (of_picture.get(ICC_PROFILE) or fields[ICC_PROFILE]).data


def _find_in_raw(data: bytes, info: Info, found: _Found) -> None:
    """Find the metadata of a raw that resembles a TIFF, or has a JPEG that begins with it."""
    if data.startswith(b"FUJIFILM") and len(data) >= 92:
        start, length = struct.unpack_from(">II", data, 84)
        _find_in_jpeg(data[start : start + length], {}, found)
    elif data[:2] in (b"II", b"MM"):
        _find_in_tiff(data, info, found)
    found.icc = None  # of the preview; developing gives sRGB
    if not found.exif and found.reader is None:
        message = "the metadata of this kind of raw photo can't be read and was left out"
        found.degraded.append(Degradation("metadata", message))


def _find_in_heif(data: bytes, info: Info, found: _Found) -> None:
    _find_in_info(data, info, found)
    picture = heif_picture(data)
    if picture is None:
        return
    cicp = picture.cicp()
    profile = next(
        (c[4:] for kind, c in picture.properties if kind == b"colr" and c[:4] in _PROFILES), None
    )
    found.icc = found.icc if profile is None else profile
    if found.icc is None and cicp is not None:
        found.space = color_spaces.of_code_points(*cicp)
    found.gain_map = b"tmap" in picture.item_kinds or any(
        "gainmap" in name.lower() for name in picture.auxiliary
    )


_PROFILES = (b"prof", b"rICC")


def _find_in_jxl(data: bytes, info: Info, found: _Found) -> None:
    _find_in_info(data, info, found)
    if data[:2] == b"\xff\x0a":
        return
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"xml " and not found.xmp:
            found.xmp = data[start:end]
        elif kind == b"brob":
            message = "compressed metadata in it was left out"
            found.degraded.append(Degradation("metadata", message))


def _find_in_info(data: bytes, info: Info, found: _Found) -> None:
    exif, packet = info.get("exif"), info.get("xmp")
    found.exif = exif.removeprefix(_EXIF_MARK) if isinstance(exif, bytes) else b""
    found.xmp = packet if isinstance(packet, bytes) else b""
    found.icc = _profile_in(info)


def _profile_in(info: Info) -> bytes | None:
    if "icc_profile" not in info:
        return None
    profile = info["icc_profile"]
    return profile if isinstance(profile, bytes) else b""  # Pillow could not join its segments


_FINDERS: dict[str, Callable[[bytes, Info, _Found], None]] = {
    "jpeg": _find_in_jpeg,
    "tiff": _find_in_tiff,
    "raw": _find_in_raw,
    "avif": _find_in_heif,
    "heic": _find_in_heif,
    "jxl": _find_in_jxl,
}


def _sane(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    lowest, highest = RESOLUTION_LIMITS
    if dpi is None:
        return None
    is_sane = all(math.isfinite(value) and lowest <= value <= highest for value in dpi)
    return dpi if is_sane else None
