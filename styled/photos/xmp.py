"""XMP packets: properties of the photo's file are removed, and the parts of long packets joined.

Source: Adobe's XMP specification, parts 1 to 3; Google's Motion Photo 1.0 and Ultra HDR 1.1;
Apple's and Adobe's gain maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.dom import Node, minidom
from xml.parsers.expat import ExpatError

from styled.photos.jpeg import extension_guid

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NOTE = "http://ns.adobe.com/xmp/note/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_CAMERA = "http://ns.google.com/photos/1.0/camera/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"

_FILE_SPECIFIC: dict[str, frozenset[str]] = {
    _XMP: frozenset({"Thumbnails"}),
    _TIFF: frozenset(
        {"ImageWidth", "ImageLength", "BitsPerSample", "Compression", "PhotometricInterpretation",
         "SamplesPerPixel", "PlanarConfiguration", "YCbCrSubSampling", "YCbCrPositioning",
         "NativeDigest"}
    ),
    _EXIF: frozenset(
        {"PixelXDimension", "PixelYDimension", "ColorSpace", "CompressedBitsPerPixel",
         "SubjectArea", "SubjectLocation", "NativeDigest"}
    ),
    _PHOTOSHOP: frozenset({"ICCProfile", "ColorMode"}),
    _NOTE: frozenset({"HasExtendedXMP"}),
    _PANORAMA: frozenset(
        {"FullPanoWidthPixels", "FullPanoHeightPixels", "CroppedAreaImageWidthPixels",
         "CroppedAreaImageHeightPixels", "CroppedAreaLeftPixels", "CroppedAreaTopPixels",
         "LargestValidInteriorRectLeft", "LargestValidInteriorRectTop",
         "LargestValidInteriorRectWidth", "LargestValidInteriorRectHeight"}
    ),
}  # fmt: skip
"""Properties that tell sizes, encoding and thumbnails of the photo's file."""

_FILE_CONTENTS = (
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/dd/1.0/",
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.apple.com/pixeldatainfo/1.0/",
)
"""Namespaces (or how they begin) of properties that describe what else lies in the photo's file."""

_CAMERA_PREFIXES = ("MotionPhoto", "MicroVideo", "HdrPlus")
_SIGNS_OF_GAIN_MAPS = (b"hdrgm:Version", b"HDRGainMapVersion")

_REGIONS = frozenset({"http://www.metadataworkinggroup.com/schemas/regions/",
                      "http://ns.microsoft.com/photo/1.2/"})  # fmt: skip
"""Positions of faces, relative to the picture as it lies in its file."""

_MAX_ELEMENTS = 20_000
_MAX_ATTRIBUTES = 100_000
_MAX_BYTES = 64 << 20
_MAX_DEPTH = 100


_STAND_INS = {"\n": "\ufdd0", "\t": "\ufdd1", "\r": "\ufdd2"}
_TO_STAND_INS = str.maketrans(_STAND_INS)
_FROM_STAND_INS = str.maketrans(
    {stand_in: f"&#{ord(real)};" for real, stand_in in _STAND_INS.items()}
)


_WIDE_ENCODINGS = {
    encoding: "<".encode(encoding)
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
}
"""Encoding -> the first character of a packet. UTF-32 begins like UTF-16: it comes first."""


class XmpDamaged(ValueError):
    """An XMP packet that can't be read as XML."""


def has_gain_map(xmp: bytes) -> bool:
    """Return whether a packet announces a gain map."""
    without_zeros = xmp.replace(b"\0", b"")  # it may be in UTF-16
    return any(sign in without_zeros for sign in _SIGNS_OF_GAIN_MAPS)


def xmp_of_painting(xmp: bytes, extension: bytes = b"", *, is_turned: bool = False) -> bytes:
    """Return an XMP packet without the properties that describe the photo's file, in UTF-8.

    A packet in UTF-8 with nothing to be removed is returned byte for byte, even if it is damaged.

    Args:
        xmp: The packet.
        extension: The second part of a packet that was too long for its file; it is joined.
        is_turned: Whether the photo was turned upright, so that positions in it are wrong.

    Raises:
        XmpDamaged: It can't be read.
    """
    xmp = _in_utf8(xmp)
    if not extension and not _may_be_file_specific(xmp, is_turned):
        return xmp
    document = _parse(xmp)
    changed = False
    if extension:
        changed = _join(document, _parse(_in_utf8(extension)))
    for description in _descriptions(document):
        changed |= _clean(description, is_turned)
    return _serialized(document) if changed else xmp


def _in_utf8(xmp: bytes) -> bytes:
    """Return a packet in UTF-8, without padding; TIFF files may have it in UTF-16 or UTF-32.

    Raises:
        XmpDamaged: It can't be decoded.
    """
    for encoding, start in _WIDE_ENCODINGS.items():
        if xmp.startswith((start, "\ufeff".encode(encoding))):
            if len(xmp) > _MAX_BYTES:
                raise XmpDamaged("it is too long")
            try:
                text = xmp[: len(xmp) // len(start) * len(start)].decode(encoding)
            except UnicodeDecodeError as error:
                raise XmpDamaged(str(error)) from error
            text = text.strip("\0\ufeff")
            if text.startswith("<?xml "):  # it names the encoding
                _, end, text = text.partition("?>")
                if not end:
                    raise XmpDamaged("its XML declaration does not end")
            return text.lstrip().encode()
    return xmp.rstrip(b"\0").removeprefix(b"\xef\xbb\xbf")


def _may_be_file_specific(xmp: bytes, is_turned: bool) -> bool:
    """Return whether a packet contains any name of a property that describes the photo's file."""
    names = {name for names in _FILE_SPECIFIC.values() for name in names} | {"Orientation"}
    names |= {*_FILE_CONTENTS, *_CAMERA_PREFIXES, *(_REGIONS if is_turned else ())}
    return any(name.encode() in xmp for name in names)


def split_xmp(xmp: bytes, max_bytes: int) -> tuple[bytes, bytes]:
    """Move the longest properties to a second part, until the first has at most `max_bytes`.

    Raises:
        XmpDamaged: It can't be split.
    """
    if len(xmp) <= max_bytes:
        return xmp, b""
    document = _parse(xmp)
    second = _parse(
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="' + _RDF.encode()
        + b'"></rdf:RDF></x:xmpmeta>'
    )  # fmt: skip
    target = next(_rdf(second))
    descriptions = list(_descriptions(document))
    properties = [
        (len(child.toxml()), position, description, child)
        for description in descriptions
        for position, child in enumerate(list(description.childNodes))
        if child.nodeType == Node.ELEMENT_NODE
    ]
    excess = len(xmp) + 200 - max_bytes
    for length, _, description, child in sorted(properties, key=lambda p: (-p[0], p[1])):
        if excess <= 0:
            break
        shell = second.importNode(description, False)
        for attribute in _attributes(shell):
            if not attribute.name.startswith("xmlns") and attribute.namespaceURI != _RDF:
                shell.removeAttributeNode(attribute)
        shell.appendChild(second.importNode(child, True))
        target.appendChild(shell)
        description.removeChild(child)
        excess -= length
    extension = _serialized(second)
    if descriptions:
        descriptions[0].setAttribute("xmlns:xmpNote", _NOTE)
        descriptions[0].setAttribute("xmpNote:HasExtendedXMP", extension_guid(extension).decode())
    first = _serialized(document)
    if len(first) > max_bytes:
        raise XmpDamaged("it can't be split")
    return first, extension


def _parse(xmp: bytes) -> minidom.Document:
    is_too_large = (
        len(xmp) > _MAX_BYTES
        or xmp.count(b"<") > _MAX_ELEMENTS
        or xmp.count(b"=") > _MAX_ATTRIBUTES + len(xmp) // 100
    )
    # Zeros are legal in no XML, but in UTF-16, which would hide what is looked for here.
    if (
        is_too_large
        or b"\0" in xmp
        or (b"<!" in xmp[:1000] and b"<!DOCTYPE" in xmp)
        or b"<!ENTITY" in xmp
    ):
        raise XmpDamaged("it is not what programs write")
    try:
        document = minidom.parseString(xmp)
    except (ExpatError, ValueError, RecursionError, LookupError) as error:
        raise XmpDamaged(str(error)) from error
    # Most functions of the library call themselves for each level.
    level: list[Any] = [document]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in node.childNodes]
        if not level:
            return document
    raise XmpDamaged("it is nested too deeply")


def _serialized(document: minidom.Document) -> bytes:
    # Line breaks and tabs in attributes are written as they are before Python 3.13, and would be
    # read as blanks. Characters that no text has stand for them meanwhile.
    for element in document.getElementsByTagName("*"):
        for attribute in _attributes(element):
            attribute.value = attribute.value.translate(_TO_STAND_INS)
    try:
        text = "".join(node.toxml() for node in document.childNodes)
        return text.translate(_FROM_STAND_INS).encode()
    except (RecursionError, UnicodeError) as error:
        raise XmpDamaged(str(error)) from error


def _rdf(document: minidom.Document) -> Iterator[minidom.Element]:
    yield from document.getElementsByTagNameNS(_RDF, "RDF")[:1]


def _descriptions(document: minidom.Document) -> Iterator[minidom.Element]:
    for rdf in _rdf(document):
        for child in list(rdf.childNodes):
            if child.nodeType == Node.ELEMENT_NODE and child.localName == "Description":
                yield child


def _attributes(element: minidom.Element) -> list[minidom.Attr]:
    return list(element.attributes.values())


def _join(document: minidom.Document, extension: minidom.Document) -> bool:
    target = next(_rdf(document), None)
    if target is None:
        return False
    for description in list(_descriptions(extension)):
        target.appendChild(document.importNode(description, True))
    return True


def _clean(description: minidom.Element, is_turned: bool) -> bool:
    """Remove properties of a description that describe the photo's file; return whether any."""
    changed = False
    for attribute in _attributes(description):
        name = attribute.localName or attribute.name
        if attribute.namespaceURI == _TIFF and name == "Orientation":
            changed |= attribute.value != "1"
            attribute.value = "1"
        elif _is_file_specific(attribute.namespaceURI, name, is_turned):
            description.removeAttributeNode(attribute)
            changed = True
    for child in list(description.childNodes):
        if child.nodeType != Node.ELEMENT_NODE:
            continue
        if child.namespaceURI == _TIFF and child.localName == "Orientation":
            text = child.firstChild
            if text is not None and text.nodeType == Node.TEXT_NODE:
                changed |= text.data != "1"
                text.data = "1"
        elif _is_file_specific(child.namespaceURI, child.localName, is_turned):
            description.removeChild(child)
            changed = True
    return changed


def _is_file_specific(namespace: str | None, name: str | None, is_turned: bool) -> bool:
    if not namespace or not name:
        return False
    if namespace == _CAMERA:
        return name.startswith(_CAMERA_PREFIXES)
    if is_turned and namespace in _REGIONS:
        return True
    return namespace.startswith(_FILE_CONTENTS) or name in _FILE_SPECIFIC.get(namespace, ())
