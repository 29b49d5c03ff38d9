"""EXIF data, kept byte for byte in the photo's own byte order.

Cameras fill the MakerNote with a structure of their own, whose offsets mostly count from the start
of the EXIF data, and which refers to bytes outside of it. It is therefore written at its
original offset, and so are all bytes that no known field refers to.

Source: EXIF 2.32 (CIPA DC-008); TIFF revision 6.0; on MakerNotes ExifTool's documentation.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from styled.photos.tiff_tags import (
    ASCII,
    BYTE,
    LONG,
    RATIONAL,
    SHORT,
    Directory,
    Field,
    TiffReader,
)

Fields = Mapping[int, Field]

ORIENTATION, SOFTWARE = 274, 305
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
RESOLUTION_LIMITS = 1.0, 60_000.0
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY = 34665, 34853, 40965
XMP, IPTC, PHOTOSHOP, ICC_PROFILE = 700, 33723, 34377, 34675
MAKER_NOTE, USER_COMMENT, COLOR_SPACE = 37500, 37510, 40961
PIXEL_X, PIXEL_Y = 40962, 40963
INTEROP_INDEX = 1
_PADDING = 59932

_LAYOUT_TAGS = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284,
     288, 289, 290, 291, 292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330,
     332, 333, 334, 336, 337, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 351,
     *range(512, 522), 529, 530, 531, 532, XMP, 32995, 32996, 32997, 32998, 33421, 33422,
     IPTC, PHOTOSHOP, EXIF_DIRECTORY, ICC_PROFILE, GPS_DIRECTORY, 34732, 37724,
     INTEROP_DIRECTORY, 50215, _PADDING, *range(50706, 51182), *range(52525, 52554)}
)  # fmt: skip
"""Tags of the main directory that describe the file: its layout, thumbnails, the sensor of a DNG,
and what is kept elsewhere (XMP, IPTC, the colour profile)."""

_COMPRESSED_BITS_PER_PIXEL = 37122
_FOCAL_PLANE_TAGS = (41486, 41487, 41488)  # pixels of the focal plane for each unit of length
_SUBJECT_POSITION_TAGS = (37396, 41492)  # subject area and location, in pixels

_SRGB, _UNCALIBRATED = 1, 0xFFFF

MAX_MAKER_NOTE_OFFSET = 1 << 20

_LAST_TYPE = 12  # offsets of further directories, and the types of BigTIFF, come after it

# MakerNotes whose offsets count from their own start, so that they may be moved.
_MOVABLE = (b"Nikon\0\2", b"OLYMPUS\0", b"OM SYSTEM\0", b"FUJIFILM", b"Apple iOS\0", b"PENTAX \0",
            b"SIGMA\0", b"Ricoh", b"LEICA CAMERA AG\0", b"Google\0")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exif:
    """EXIF data, without its thumbnail.

    Attributes:
        order: Byte order of all fields: `<` or `>`, as in `struct`.
        image: Fields of the main directory.
        photo: Fields of the EXIF directory.
        gps: Fields of the GPS directory.
        interop: Fields of the interoperability directory.
        loose: Offset and bytes of what belongs to none of these fields: MakerNotes refer to it.
    """

    order: str = "<"
    image: Fields = field(default_factory=dict)
    photo: Fields = field(default_factory=dict)
    gps: Fields = field(default_factory=dict)
    interop: Fields = field(default_factory=dict)
    loose: tuple[tuple[int, bytes], ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is any field."""
        return bool(self.image or self.photo or self.gps)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photo according to it, 0 if it does not say."""
        photo = Directory(self.order, self.photo)
        return photo.number(PIXEL_X), photo.number(PIXEL_Y)

    @property
    def is_adobe_rgb(self) -> bool:
        """Whether it says that the colours are in Adobe RGB (DCF 2.0, optional colour space)."""
        space = Directory(self.order, self.photo).number(COLOR_SPACE)
        index = Directory(self.order, self.interop).text(INTEROP_INDEX)
        return space == 2 or (space == _UNCALIBRATED and index.startswith("R03"))

    def dpi(self) -> tuple[float, float] | None:
        """Return the resolution in dots per inch, None if there is none."""
        image = Directory(self.order, self.image)
        unit = image.number(RESOLUTION_UNIT, 2)
        x, y = image.numbers(X_RESOLUTION)[:1], image.numbers(Y_RESOLUTION)[:1]
        if not x or unit not in (2, 3):
            return None
        scale = 2.54 if unit == 3 else 1.0
        return x[0] * scale, (y or x)[0] * scale


def read_exif(reader: TiffReader) -> tuple[Exif, int, bool]:
    """Return EXIF data, the orientation (1 if none is valid), and whether a field was missing.

    Args:
        reader: Of EXIF data, or of a TIFF file.

    Raises:
        ValueError: Its main directory can't be read.
    """
    main = reader.read(reader.first_offset)
    photo = _sub_directory(reader, main, EXIF_DIRECTORY)
    gps = _sub_directory(reader, main, GPS_DIRECTORY)
    interop = _sub_directory(reader, photo, INTEROP_DIRECTORY)
    missing = any(directory.missing for directory in (main, photo, gps))
    if main.number(EXIF_DIRECTORY) not in (0, main.offset) and not photo.fields:
        missing = True
    orientation = main.number(ORIENTATION, 1)
    image = _without(main.fields, _LAYOUT_TAGS | {SOFTWARE})
    if not all(_is_resolution(main, tag) for tag in (X_RESOLUTION, Y_RESOLUTION)):
        image = _without(image, (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT))
    exif = Exif(
        reader.order,
        image,
        _without(photo.fields, {INTEROP_DIRECTORY, _PADDING}),
        _without(gps.fields, {_PADDING}),
        interop.fields,
        _loose_bytes(reader, [main, photo, gps, interop]) if MAKER_NOTE in photo else (),
    )
    return exif, orientation if orientation in range(1, 9) else 1, missing


def _loose_bytes(reader: TiffReader, directories: list[Directory]) -> tuple[tuple[int, bytes], ...]:
    """Return what belongs to no known field of EXIF data, but for long runs of zeros."""
    if reader.size > MAX_MAKER_NOTE_OFFSET:  # a TIFF file: the rest is its pixels
        return ()
    further = list(reader.chain(directories[0].next_offset))
    further += [
        sub for one in (directories[0], *further) for sub in reader.sub_directories(one, 330)
    ]
    known = [(0, 8)]
    for directory in (*directories, *further):
        known.append((directory.offset, directory.end + reader.word_bytes))
        known += [(v.offset, v.offset + len(v.data)) for v in directory.fields.values()]
        for offsets, lengths in _PICTURE_BYTES:
            starts = (int(start) for start in directory.numbers(offsets) if math.isfinite(start))
            known += [
                (start, start + int(length))
                for start, length in zip(starts, directory.numbers(lengths), strict=False)
                if math.isfinite(length)
            ]
    loose = []
    position = 0
    for start, end in (*sorted(known), (reader.size, reader.size)):
        content = reader.bytes_at(position, start) if start > position else b""
        if content.strip(b"\0") or 0 < len(content) <= _LONGEST_PADDING:
            loose.append((position, content))
        position = max(position, end)
    return tuple(loose)


_PICTURE_BYTES = ((273, 279), (324, 325), (513, 514))
"""Offsets and lengths of strips, of tiles, and of a thumbnail."""
_LONGEST_PADDING = 64


def _is_resolution(directory: Directory, tag: int) -> bool:
    """Return whether a field is one fraction that makes sense as pixels for each inch or cm."""
    value = directory.fields.get(tag)
    if value is None or (value.type, value.count) != (RATIONAL, 1):
        return False
    lowest, highest = RESOLUTION_LIMITS
    return lowest <= directory.numbers(tag)[0] <= highest


def _sub_directory(reader: TiffReader, parent: Directory, tag: int) -> Directory:
    found = next(reader.sub_directories(parent, tag), Directory(reader.order, {}))
    leads_back = found.offset in (parent.offset, reader.first_offset)
    return Directory(reader.order, {}) if leads_back else found


def _without(fields: Fields, tags: Iterable[int]) -> dict[int, Field]:
    left_out = set(tags)
    return {
        tag: value
        for tag, value in fields.items()
        if tag not in left_out and value.type <= _LAST_TYPE
    }


def exif_of_painting(
    exif: Exif, size: tuple[int, int], *, software: str, srgb: bool, adobe_rgb: bool,
    dpi: tuple[float, float] | None, is_turned: bool,
) -> Exif:  # fmt: skip
    """Return a photo's EXIF data for its painting: size, orientation and so on are updated.

    Args:
        exif: The photo's.
        size: Width and height of the painting in pixels.
        software: Name and version of this program.
        srgb: Whether the painting is in sRGB.
        adobe_rgb: Whether it is in Adobe RGB.
        dpi: Resolution, if the EXIF data has none.
        is_turned: Whether the photo was turned upright.
    """
    order = exif.order
    image = dict(exif.image)
    image[SOFTWARE] = text_field(software)
    if dpi is not None and X_RESOLUTION not in image:
        image[X_RESOLUTION], image[Y_RESOLUTION] = (rational_field(order, d) for d in dpi)
        image[RESOLUTION_UNIT] = number_field(order, SHORT, 2)
    if not exif:
        return Exif(order, image)
    photo = _without(exif.photo, {_COMPRESSED_BITS_PER_PIXEL})
    if is_turned or exif.size != size:
        photo = _without(photo, (*_SUBJECT_POSITION_TAGS, *_FOCAL_PLANE_TAGS))
    width, height = size
    if PIXEL_X in photo or PIXEL_Y in photo:
        photo[PIXEL_X], photo[PIXEL_Y] = (number_field(order, LONG, n) for n in (width, height))
    if COLOR_SPACE in photo:
        photo[COLOR_SPACE] = number_field(order, SHORT, _SRGB if srgb else _UNCALIBRATED)
    if ORIENTATION in image:
        image[ORIENTATION] = number_field(order, SHORT, 1)
    interop = dict(exif.interop)
    if Directory(order, interop).text(INTEROP_INDEX)[:3] in ("R98", "R03"):
        index = "R98" if srgb else "R03" if adobe_rgb else ""
        interop[INTEROP_INDEX] = text_field(index)
        if not index:
            interop = {}
    return replace(exif, image=image, photo=photo, interop=interop)


def text_field(text: str) -> Field:
    """Return a field of text."""
    data = text.encode("ascii", "replace") + b"\0"
    return Field(ASCII, len(data), data)


def number_field(order: str, kind: int, *values: int) -> Field:
    """Return a field of whole numbers; `kind` is BYTE, SHORT or LONG."""
    layout = {BYTE: "B", SHORT: "H", LONG: "I"}[kind]
    return Field(kind, len(values), struct.pack(f"{order}{len(values)}{layout}", *values))


def rational_field(order: str, value: float) -> Field:
    """Return a field of one positive fraction."""
    denominator = 1 if value == int(value) else 10_000
    return Field(
        RATIONAL, 1, struct.pack(f"{order}II", round(value * denominator), denominator)
    )  # fmt: skip


def bytes_field(kind: int, data: bytes) -> Field:
    """Return a field of opaque bytes; `kind` is BYTE or UNDEFINED."""
    return Field(kind, len(data), data)


def without(exif: Exif, tag: int) -> Exif:
    """Return EXIF data without a field of its EXIF directory."""
    loose = () if tag == MAKER_NOTE else exif.loose
    return replace(exif, photo=_without(exif.photo, {tag}), loose=loose)


def without_orientation(exif: Exif) -> Exif:
    """Return EXIF data that does not say how the picture is oriented."""
    return replace(exif, image=_without(exif.image, {ORIENTATION}))


def maker_note_offset(exif: Exif) -> int | None:
    """Return where the MakerNote has to lie; None: anywhere, or there is none."""
    note = exif.photo.get(MAKER_NOTE)
    if note is None or len(note.data) <= 4:
        return None
    if note.data.startswith(_MOVABLE) and note.offset > MAX_MAKER_NOTE_OFFSET:
        return None
    return note.offset


def to_bytes(exif: Exif) -> bytes:
    """Return EXIF data from its byte order mark on.

    Raises:
        ValueError: The MakerNote overlaps the header.
    """
    order = exif.order
    directories = [exif.image, exif.photo, exif.gps, exif.interop]
    image, photo, gps, interop = (dict(fields) for fields in directories)
    # Pointers are placed first with any value, so that the sizes of all directories are known.
    zero = number_field(order, LONG, 0)
    if interop:
        photo[INTEROP_DIRECTORY] = zero
    if photo:
        image[EXIF_DIRECTORY] = zero
    if gps:
        image[GPS_DIRECTORY] = zero
    note = photo.get(MAKER_NOTE)
    note_offset = maker_note_offset(exif)
    pieces = dict(exif.loose)
    if note is not None and note_offset is not None:
        pieces[note_offset] = note.data
    layout = _Layout([(start, start + len(data)) for start, data in pieces.items()])
    parts = [(fields, layout.place(2 + 12 * len(fields) + 4)) for fields in
             (image, photo, gps, interop) if fields or fields is image]  # fmt: skip
    offsets = {id(fields): offset for fields, offset in parts}
    if interop:
        photo[INTEROP_DIRECTORY] = number_field(order, LONG, offsets[id(interop)])
    if photo:
        image[EXIF_DIRECTORY] = number_field(order, LONG, offsets[id(photo)])
    if gps:
        image[GPS_DIRECTORY] = number_field(order, LONG, offsets[id(gps)])
    for fields, offset in parts:
        entries = [struct.pack(f"{order}H", len(fields))]
        for tag, value in sorted(fields.items()):
            entries.append(struct.pack(f"{order}HHI", tag, value.type, value.count))
            if len(value.data) <= 4:
                entries.append(value.data.ljust(4, b"\0"))
                continue
            position = note_offset if value is note else None
            if position is None:
                position = layout.place(len(value.data))
                pieces[position] = value.data
            entries.append(struct.pack(f"{order}I", position))
        entries.append(bytes(4))  # no further directory
        pieces[offset] = b"".join(entries)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    result = bytearray(mark + struct.pack(f"{order}I", parts[0][1]))
    for position, data in sorted(pieces.items()):
        result += bytes(max(0, position - len(result)))
        result[position : position + len(data)] = data
    return bytes(result)


class _Layout:
    """Places blocks of bytes behind the header of 8 bytes, around blocks at fixed places."""

    def __init__(self, fixed: list[tuple[int, int]]) -> None:
        """Leave out the ranges in `fixed`.

        Raises:
            ValueError: One of them overlaps the header.
        """
        self._gaps: list[tuple[int, float]] = []
        position = 8
        for start, end in sorted(fixed):
            if start < 8:
                raise ValueError("the MakerNote overlaps the header")
            self._gaps.append((position, start))
            position = max(position, end)
        self._gaps.append((position, inf))

    def place(self, size: int) -> int:
        """Return an even position for a block of `size` bytes."""
        for index, (start, end) in enumerate(self._gaps):
            start += start % 2
            if start + size <= end:
                self._gaps[index] = (start + size, end)
                return start
        raise AssertionError("the last gap has no end")
