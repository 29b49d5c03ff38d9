"""Reads what an image file has apart from its pixels: metadata, orientation, colour space.

Each format stores them differently. Damaged metadata becomes a degradation and never makes
decoding fail.
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
    ORIENTATION,
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
"""`Image.info` of Pillow or its like: the keys `exif`, `xmp` and `icc_profile` are used."""

_XMP_TEXT = "XML:com.adobe.xmp"
# ImageMagick stores metadata in PNG texts with these keys.
_XMP_TEXT_KEYS = ("Raw profile type xmp", "Raw profile type APP1")
_EXIF_TEXT_KEYS = ("Raw profile type exif", "Raw profile type APP1")
_IPTC_TEXT_KEYS = ("Raw profile type iptc", "Raw profile type 8bim", "Raw profile type APP13")
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_MARK = b"Exif\0\0"

_GAIN_MAP = Degradation(
    "color", "its gain map, for screens of another dynamic range (HDR or SDR), was not used"
)
_DAMAGED_EXIF = Degradation("metadata", "the EXIF data is damaged and was left out")
_PARTLY_DAMAGED_EXIF = Degradation(
    "metadata", "part of the EXIF data lies outside the file and was left out"
)
_DAMAGED_XMP = Degradation("metadata", "the XMP data is damaged and was left out")


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """What an image file has apart from its pixels.

    Attributes:
        metadata: What is copied to the painting.
        orientation: EXIF orientation, 1..8, that is still to be applied to the pixels.
        icc: The embedded ICC profile, None if there is none, b"" if it is damaged.
        space: The colour space that PNG chunks, code points (H.273) or EXIF give in place of a
            profile. None: there is a profile, no colour space is given, or it is sRGB.
        degraded: Metadata that was damaged or left out, and gain maps that were not used.
    """

    metadata: Metadata = field(default_factory=Metadata)
    orientation: int = 1
    icc: bytes | None = None
    space: ColorSpace | None = None
    degraded: tuple[Degradation, ...] = ()


@dataclass(slots=True)
class _Found:
    """What was found in a file, before it is checked.

    Attributes:
        exif: EXIF data; empty if `reader` is set.
        reader: Of a TIFF file, whose main directory is the EXIF data.
        xmp_extension: The extended XMP of a JPEG.
        photoshop: The image resources that are copied to the painting.
        icc: As in `FileMetadata`.
        names_space: Whether the file names a colour space; `space` is None if that is sRGB.
        orientation: Of the page of a TIFF file that is painted, if it has one of its own.
    """

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
    names_space: bool = False
    orientation: int | None = None
    gain_map: bool = False
    degraded: list[Degradation] = field(default_factory=list)


def read_file_metadata(
    data: bytes, format: str, info: Info, *, chunks: PngChunks | None = None,
    decoder_applies_orientation: bool = False,
) -> FileMetadata:  # fmt: skip
    """Read what an image file has apart from its pixels; damaged metadata raises nothing.

    Args:
        data: The bytes of the file.
        format: As `format_of` returns it.
        info: What Pillow has found in it; may be empty.
        chunks: Of a PNG file, which is not parsed again; None for other formats.
        decoder_applies_orientation: Whether the decoder has turned the pixels already: the
            orientation is 1 then.
    """
    found = _Found()
    if chunks is not None:
        _find_in_png(chunks, found)
    else:
        _FINDERS.get(format, _find_in_info)(data, info, found)
    exif, orientation = _parse_exif(found)
    is_turned = orientation != 1  # by the decoder, or soon
    if decoder_applies_orientation:
        orientation = 1
    xmp = b""
    try:
        xmp = xmp_of_painting(found.xmp, found.xmp_extension, is_turned=is_turned)
    except XmpDamaged:
        found.degraded.append(_DAMAGED_XMP)
    if found.gain_map or has_gain_map(found.xmp):
        found.degraded.append(_GAIN_MAP)
    space = found.space
    if found.icc is None and not found.names_space and exif.is_adobe_rgb:
        space = color_spaces.ADOBE_RGB_SPACE
    metadata = Metadata(
        exif=exif, xmp=xmp, iptc=found.iptc, photoshop=found.photoshop,
        dpi=_plausible_dpi(found.dpi) or _plausible_dpi(exif.dpi()), comment=found.comment,
        texts=found.texts, is_turned=is_turned,
    )  # fmt: skip
    return FileMetadata(metadata, orientation, found.icc, space, tuple(found.degraded))


def _parse_exif(found: _Found) -> tuple[Exif, int]:
    """Return the EXIF data and the orientation."""
    if found.reader is None and not found.exif:
        return Exif(), 1
    try:
        reader = found.reader or TiffReader(found.exif)
        exif, orientation, is_damaged = read_exif(reader)
    except (ValueError, struct.error):
        found.degraded.append(_DAMAGED_EXIF)
        return Exif(), 1
    if is_damaged:
        found.degraded.append(_PARTLY_DAMAGED_EXIF)
    return exif, found.orientation or orientation


def _find_in_jpeg(data: bytes, info: Info, found: _Found) -> None:
    segments = JpegSegments(data)
    found.exif = segments.exif
    found.xmp, found.xmp_extension = segments.xmp, segments.xmp_extension
    found.comment = segments.comment
    found.dpi = segments.dpi
    found.iptc = iptc.iptc_in(segments.photoshop)
    found.photoshop = iptc.kept_resources(segments.photoshop)
    found.gain_map = segments.has_gain_map
    found.icc = _profile_in(info)
    found.degraded += segments.degraded


_SPACE_CHUNKS = frozenset({b"cICP", b"sRGB", b"gAMA", b"cHRM"})


def _find_in_png(chunks: PngChunks, found: _Found) -> None:
    texts = chunks.texts
    found.exif = chunks.ancillary.get(b"eXIf", b"")
    found.xmp = texts.get(_XMP_TEXT, b"")
    # The key APP1 may hold EXIF data or XMP: their headers tell.
    for key in _EXIF_TEXT_KEYS:
        content = iptc.raw_profile(texts.get(key, b""))
        if not found.exif and not content.startswith(_XMP_MARK):
            found.exif = content.removeprefix(_EXIF_MARK)
    for key in _XMP_TEXT_KEYS:
        content = iptc.raw_profile(texts.get(key, b""))
        if not found.xmp and not content.startswith(_EXIF_MARK):
            found.xmp = content.removeprefix(_XMP_MARK)
    for key in _IPTC_TEXT_KEYS:
        found.iptc = found.iptc or iptc.iptc_in(iptc.raw_profile(texts.get(key, b"")))
    found.dpi = chunks.dpi()
    found.texts = tuple(
        (key, texts[key].decode("utf-8" if key in chunks.unicode_keys else "latin-1", "replace"))
        for key in TEXT_KEYS
        if key in texts
    )
    found.space = color_spaces.of_png_chunks(chunks.ancillary)
    found.names_space = not _SPACE_CHUNKS.isdisjoint(chunks.ancillary)
    # PNG, third edition: cICP takes precedence over iCCP, and that over gAMA and cHRM.
    if b"iCCP" in chunks.ancillary and b"cICP" not in chunks.ancillary:
        found.icc = chunks.profile() or b""
        found.space = None
    if chunks.skipped:
        message = "a text chunk is damaged or too long and was left out"
        found.degraded.append(Degradation("metadata", message))


def _find_in_tiff(data: bytes, info: Info, found: _Found) -> None:
    try:
        reader = TiffReader(data)
        first = reader.read(reader.first_offset)
    except ValueError:
        return  # decoding reports it
    picture = find_picture(reader)
    found.reader = reader
    of_picture = picture.directory.fields if picture is not None else {}
    # Programs put metadata into the first directory, even if the picture is in another one.
    fields = {**of_picture, **first.fields}
    if ORIENTATION in of_picture and picture is not None:
        orientation = picture.directory.number(ORIENTATION)
        found.orientation = orientation if orientation in range(1, 9) else None
    found.xmp = fields[XMP].data if XMP in fields else b""
    if IPTC in fields:
        # Many programs declare it as 32-bit numbers, which pads it with zeros.
        records = fields[IPTC]
        found.iptc = records.data.rstrip(b"\0") if records.type == LONG else records.data
    if PHOTOSHOP in fields:
        found.iptc = found.iptc or iptc.iptc_in(fields[PHOTOSHOP].data)
        found.photoshop = iptc.kept_resources(fields[PHOTOSHOP].data)
    if ICC_PROFILE in fields:
        found.icc = (of_picture.get(ICC_PROFILE) or fields[ICC_PROFILE]).data


def _find_in_raw(data: bytes, info: Info, found: _Found) -> None:
    """Find the metadata of a TIFF-like raw, or in the JPEG preview of a raw by Fujifilm."""
    # Its header has the preview's offset and length at byte 84.
    if data.startswith(b"FUJIFILM") and len(data) >= 92:
        start, length = struct.unpack_from(">II", data, 84)
        _find_in_jpeg(data[start : start + length], {}, found)
    elif data[:2] in (b"II", b"MM"):
        _find_in_tiff(data, info, found)
    found.icc = None  # it belongs to the preview; the raw decoder gives sRGB
    if not found.exif and found.reader is None:
        message = "no metadata was found in this raw photo"
        found.degraded.append(Degradation("metadata", message))


def _find_in_heif(data: bytes, info: Info, found: _Found) -> None:
    _find_in_info(data, info, found)
    picture = heif_picture(data)
    if picture is None:
        return
    cicp = picture.cicp()
    icc = next(
        (
            content[4:]
            for kind, content in picture.properties
            if kind == b"colr" and content[:4] in _ICC_TYPES
        ),
        None,
    )
    found.icc = found.icc if icc is None else icc
    if found.icc is None and cicp is not None:
        found.space = color_spaces.of_code_points(*cicp)
        found.names_space = cicp[0] != _UNSPECIFIED
    # ISO 21496-1 has a tone map as an item; Apple has auxiliary images named "hdrgainmap".
    found.gain_map = b"tmap" in picture.item_kinds or any(
        "gainmap" in name.lower() for name in picture.auxiliary
    )


_ICC_TYPES = (b"prof", b"rICC")
_UNSPECIFIED = 2  # of H.273


def _find_in_jxl(data: bytes, info: Info, found: _Found) -> None:
    _find_in_info(data, info, found)
    if data[:2] == b"\xff\x0a":
        return  # a bare codestream: no boxes, no metadata
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"xml " and not found.xmp:
            found.xmp = data[start:end]
        elif kind == b"brob":
            message = "compressed metadata was left out"
            found.degraded.append(Degradation("metadata", message))


def _find_in_info(data: bytes, info: Info, found: _Found) -> None:
    """Use what Pillow has found; `data` is for other finders."""
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


def _plausible_dpi(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the resolution, None if it is outside of `RESOLUTION_LIMITS`."""
    lowest, highest = RESOLUTION_LIMITS
    if dpi is None:
        return None
    is_plausible = all(math.isfinite(value) and lowest <= value <= highest for value in dpi)
    return dpi if is_plausible else None
