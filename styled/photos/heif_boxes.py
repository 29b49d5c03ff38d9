"""Reads the boxes of HEIC and AVIF files that tell what the main picture is.

Source: ISO/IEC 14496-12 (boxes), 23008-12 (HEIF: items and their properties).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from styled.photos.file_view import ByteSource

_MAX_BOXES = 5000
_MAX_META_BYTES = 16 << 20

CODECS = {b"hvcC": "heic", b"av1C": "avif"}
"""The formats by the kind of the property that configures their codec."""


@dataclass(frozen=True, slots=True)
class HeifPicture:
    """The main picture of a HEIF file.

    Attributes:
        properties: Kinds and contents of its properties.
        codecs: The kinds of all codec configurations in the file, such as hvcC.
        configurations: The contents of those of AV1.
        item_kinds: The kinds of all items, such as hvc1, grid, tmap.
        auxiliary: The names of the kinds of all auxiliary pictures.
        is_premultiplied: Whether the colours were multiplied by the opacity.
    """

    properties: tuple[tuple[bytes, bytes], ...]
    codecs: frozenset[bytes]
    configurations: tuple[bytes, ...]
    item_kinds: frozenset[bytes]
    auxiliary: tuple[str, ...]
    is_premultiplied: bool = False

    def find_property(self, kind: bytes) -> bytes | None:
        """Return the main picture's first property of a kind, None if it has none."""
        return next((content for name, content in self.properties if name == kind), None)

    @property
    def bits(self) -> int:
        """Bits per channel of an AVIF; of a grid, whose tiles have the configuration, as well."""
        pixel_information = self.find_property(b"pixi")
        if pixel_information is not None and len(pixel_information) > 5:
            return max(pixel_information[5 : 5 + pixel_information[4]], default=8)
        own = self.find_property(b"av1C")
        for configuration in (own, *self.configurations):
            if configuration is not None and len(configuration) > 2:
                flags = configuration[2]
                return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
        return 8

    def cicp(self) -> tuple[int, int] | None:
        """Return primaries and transfer characteristics (H.273) of its nclx colours, or None."""
        for name, content in self.properties:
            if name == b"colr" and content[:4] == b"nclx" and len(content) >= 8:
                primaries, transfer = struct.unpack_from(">HH", content, 4)
                return primaries, transfer
        return None


def boxes(data: ByteSource, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Return kind, start and end of the content of each box between two positions."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        length, kind = struct.unpack(">I4s", data[start : start + 8])
        content = start + 8
        if length == 1:
            if start + 16 > end:
                return
            (length,) = struct.unpack(">Q", data[start + 8 : start + 16])
            content += 8
        stop = end if length == 0 else start + length
        if stop > end or stop < content:
            return
        yield kind, content, stop
        start = stop


def heif_picture(data: ByteSource) -> HeifPicture | None:
    """Describe the main picture; None if the file has no whole `meta` box."""
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"meta" and end - start <= _MAX_META_BYTES:
            try:
                return _of_meta(data[start + 4 : end])
            except (struct.error, IndexError):
                return None
    return None


def _of_meta(meta: bytes) -> HeifPicture:
    parts = {kind: meta[start:end] for kind, start, end in boxes(meta, 0, len(meta))}
    item_properties = parts.get(b"iprp", b"")
    containers = {
        kind: item_properties[start:end]
        for kind, start, end in boxes(item_properties, 0, len(item_properties))
    }
    listed = containers.get(b"ipco", b"")
    properties = [(kind, listed[start:end]) for kind, start, end in boxes(listed, 0, len(listed))]
    references = parts.get(b"iref", b"")
    primary = _primary_item(parts.get(b"pitm", b""))
    indices = _associations(containers.get(b"ipma", b"")).get(primary, ())
    return HeifPicture(
        properties=tuple(properties[i - 1] for i in indices if 0 < i <= len(properties)),
        codecs=frozenset(
            kind for kind, _ in properties if len(kind) == 4 and kind[3:] in (b"C", b"H")
            and kind not in (b"auxC", b"iscC", b"cclv")
        ),
        configurations=tuple(content for kind, content in properties if kind == b"av1C"),
        item_kinds=frozenset(_item_kinds(parts.get(b"iinf", b""))),
        auxiliary=tuple(
            content[4:].split(b"\0")[0].decode("latin-1")
            for kind, content in properties
            if kind == b"auxC"
        ),
        is_premultiplied=b"prem" in {kind for kind, _, _ in boxes(references, 4, len(references))},
    )  # fmt: skip


def _primary_item(content: bytes) -> int:
    if len(content) < 6:
        return 0
    layout = ">H" if content[0] == 0 else ">I"
    return int(struct.unpack_from(layout, content, 4)[0])


def _associations(content: bytes) -> dict[int, tuple[int, ...]]:
    """Return the indices of the properties of each item, from an `ipma` box."""
    if len(content) < 8:
        return {}
    version, is_wide = content[0], content[3] & 1
    (count,) = struct.unpack_from(">I", content, 4)
    position, result = 8, {}
    for _ in range(min(count, _MAX_BOXES)):
        layout = ">H" if version < 1 else ">I"
        (item,) = struct.unpack_from(layout, content, position)
        position += struct.calcsize(layout)
        number = content[position]
        position += 1
        indices = []
        for _ in range(number):
            if is_wide:
                (index,) = struct.unpack_from(">H", content, position)
                indices.append(index & 0x7FFF)
                position += 2
            else:
                indices.append(content[position] & 0x7F)
                position += 1
        result[item] = tuple(indices)
    return result


def _item_kinds(content: bytes) -> Iterator[bytes]:
    """Return the kinds of the items that an `iinf` box lists."""
    if len(content) < 6:
        return
    start = 6 if content[0] == 0 else 8
    for kind, at, end in boxes(content, start, len(content)):
        if kind == b"infe" and end - at >= 12 and content[at] >= 2:
            skip = 4 + (2 if content[at] == 2 else 4) + 2
            yield content[at + skip : at + skip + 4]
