"""TIFF files made by hand: any fields, byte order, planes, pages and sub-directories."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

_LAYOUTS = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
_SUB_DIRECTORIES, _STRIP_OFFSETS, _STRIP_BYTE_COUNTS = 330, 273, 279


@dataclass(frozen=True)
class Page:
    """One directory: pixels, fields as (type, values), and its sub-directories."""

    levels: np.ndarray
    fields: Mapping[int, tuple[int, Sequence[int]]] = field(default_factory=dict)
    children: tuple[Page, ...] = ()
    planar: bool = False


def photometric(channels: int) -> int:
    return {1: 1, 2: 1, 3: 2, 4: 5, 5: 5}[channels]


def tiff(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    """Return an uncompressed TIFF."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        data = bytearray(mark + struct.pack(order + "HHHQ", 43, 8, 0, 0))
    else:
        data = bytearray(mark + struct.pack(order + "HI", 42, 0))
    link = 8 if big else 4
    for page in pages:
        start, link_of_next = _add(data, page, order, big)
        struct.pack_into(order + ("Q" if big else "I"), data, link, start)
        link = link_of_next
    return bytes(data)


def _add(data: bytearray, page: Page, order: str, big: bool) -> tuple[int, int]:
    """Append a directory and all that belongs to it; return its position and that of its link."""
    word, count_layout = ("Q", "Q") if big else ("I", "H")
    word_type = 16 if big else 4
    children = [_add(data, child, order, big)[0] for child in page.children]
    levels = page.levels
    height, width = levels.shape[:2]
    channels = 1 if levels.ndim == 2 else levels.shape[2]
    planes = [levels] if not page.planar else [levels[..., c] for c in range(channels)]
    offsets, lengths = [], []
    for plane in planes:
        content = plane.astype(plane.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()
        offsets.append(len(data))
        lengths.append(len(content))
        data += content + bytes(len(content) % 2)
    bits = levels.dtype.itemsize * 8
    sample_format = {"u": 1, "i": 2, "f": 3}[levels.dtype.kind]
    fields: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [1]),
        262: (3, [photometric(channels)]),
        _STRIP_OFFSETS: (word_type, offsets),
        277: (3, [channels]),
        278: (4, [height]),
        _STRIP_BYTE_COUNTS: (word_type, lengths),
        284: (3, [2 if page.planar else 1]),
        339: (3, [sample_format] * channels),
    }
    if channels in (2, 5):
        fields[338] = (3, [2])
    if children:
        fields[_SUB_DIRECTORIES] = (word_type, children)
    fields.update(page.fields)
    entries = []
    for tag, (kind, values) in sorted(fields.items()):
        content = struct.pack(f"{order}{len(values)}{_LAYOUTS[kind]}", *values)
        room = 8 if big else 4
        if len(content) > room:
            position = len(data)
            data += content + bytes(len(content) % 2)
            content = struct.pack(order + word, position)
        entries.append(struct.pack(f"{order}HH{word}", tag, kind, len(values)))
        entries.append(content.ljust(room, b"\0"))
    start = len(data)
    data += struct.pack(order + count_layout, len(fields)) + b"".join(entries)
    link = len(data)
    data += struct.pack(order + word, 0)
    return start, link
