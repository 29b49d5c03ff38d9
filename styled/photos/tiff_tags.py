"""Reads the directories of a TIFF structure: of TIFF files, camera raws and EXIF data.

Nothing is trusted: fields that lie outside the data are left out, and chains of directories are
followed for a limited number of steps. Values keep their bytes, so that they can be written again
unchanged (`styled.photos.exif`).

Source: TIFF revision 6.0 (1992), section 2; the BigTIFF design (libtiff); EXIF 2.32, section 4.6.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from styled.photos.file_view import ByteSource

MAX_DIRECTORIES = 100
"""Maximum number of directories of a chain that are read; a hostile file may have millions."""

MAX_ENTRIES = 4096

MAX_FIELD_BYTES_FACTOR = 4
"""All fields that a reader returns have at most this many times the bytes of the file: a hostile
file may have thousands that share the same bytes."""

MAX_NUMBERS = 20_000
"""Most values of a field that are converted to numbers."""

TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
"""Bytes of one value of each field type."""

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
_LAYOUTS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I",
            16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_LAYOUTS_OF_FRACTIONS = {5: "II", 10: "ii"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a directory.

    Attributes:
        type: The field type, an index of `TYPE_BYTES`.
        count: Number of values.
        data: The bytes of the values, in the byte order of their file; the first ones only, if
            the reader was asked for the layout only.
        offset: Position of `data` in the file.
    """

    type: int
    count: int
    data: bytes
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory (IFD): fields by tag, and the byte order that their values have.

    Attributes:
        order: `<` or `>`, as in `struct`.
        fields: In the order of the file.
        offset: Position of the directory in the file.
        end: Position behind its entries, where the offset of the next directory is.
        next_offset: Offset of the next directory of its chain, 0 if there is none.
        entries: Positions of its entries by tag.
        missing: Tags of fields that lie outside the file, wholly or in part.
    """

    order: str
    fields: Mapping[int, Field]
    offset: int = 0
    end: int = 0
    next_offset: int = 0
    entries: Mapping[int, int] = field(default_factory=dict)
    missing: frozenset[int] = frozenset()

    def __contains__(self, tag: int) -> bool:
        """Return whether there is a field of this tag."""
        return tag in self.fields

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Return the values of a numeric field, the first 20,000; () if it has no numbers."""
        value = self.fields.get(tag)
        if value is None:
            return ()
        size = TYPE_BYTES[value.type]
        count = min(value.count, MAX_NUMBERS, len(value.data) // size)
        if value.type in _LAYOUTS_OF_FRACTIONS:
            layout = self.order + _LAYOUTS_OF_FRACTIONS[value.type] * count
            parts = struct.unpack_from(layout, value.data)
            pairs = zip(parts[::2], parts[1::2], strict=True)
            return tuple(top / bottom if bottom else float("nan") for top, bottom in pairs)
        layout = _LAYOUTS.get(value.type, "")
        if not layout:
            return ()
        return struct.unpack_from(f"{self.order}{count}{layout}", value.data)

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first value of a field of whole numbers.

        Some programs write numbers as text, or with the type for opaque bytes.
        """
        value = self.fields.get(tag)
        if value is None:
            return default
        if value.type == ASCII:
            text = value.data.strip(b"\0 ")
            return int(text) if text.isdigit() and len(text) < 10 else default
        if value.type == UNDEFINED and value.data:
            return int.from_bytes(value.data, "little" if self.order == "<" else "big")
        values = self.numbers(tag)
        return int(values[0]) if values and math.isfinite(values[0]) else default

    def text(self, tag: int) -> str:
        """Return a text field, decoded as Latin-1, without its final zeros; "" if it is missing."""
        value = self.fields.get(tag)
        return value.data.rstrip(b"\0").decode("latin-1") if value is not None else ""


class TiffReader:
    """Reads directories of a TIFF structure at given offsets."""

    def __init__(self, data: ByteSource, *, layout_only: bool = False) -> None:
        """Read the header.

        Args:
            data: The file, or the EXIF data from its byte order mark on.
            layout_only: Whether of each field only as much is read as `numbers` returns.

        Raises:
            ValueError: It has no such header.
        """
        mark = data[:2]
        if mark not in (b"II", b"MM") or len(data) < 8:
            raise ValueError("this is not a TIFF structure")
        self.order = "<" if mark == b"II" else ">"
        self._data = data
        self._longest = 8 * MAX_NUMBERS if layout_only else len(data)
        self._bytes_left = MAX_FIELD_BYTES_FACTOR * len(data)
        self.is_big = self._unpack("H", 2)[0] == 43
        self.word, self.word_bytes = ("Q", 8) if self.is_big else ("I", 4)
        self._count, self._count_bytes = ("Q", 8) if self.is_big else ("H", 2)
        try:
            self.first_offset = int(self._unpack(self.word, self.word_bytes)[0])
        except struct.error as error:
            raise ValueError("this is not a TIFF structure") from error

    def _unpack(self, layout: str, position: int) -> tuple[int, ...]:
        layout = self.order + layout
        return struct.unpack(layout, self._data[position : position + struct.calcsize(layout)])

    @property
    def size(self) -> int:
        """Bytes of the structure."""
        return len(self._data)

    def bytes_at(self, start: int, end: int) -> bytes:
        """Return a part of the structure."""
        return self._data[start:end]

    def read(self, offset: int) -> Directory:
        """Return the directory at an offset.

        Raises:
            ValueError: There is no whole directory.
        """
        data, size = self._data, len(self._data)
        entry_bytes = 4 + 2 * self.word_bytes
        try:
            (count,) = self._unpack(self._count, offset)
        except struct.error as error:
            raise ValueError("a directory lies outside the file") from error
        start = offset + self._count_bytes
        end = start + count * entry_bytes
        if offset < 8 or count > MAX_ENTRIES or end > size:
            raise ValueError("a directory lies outside the file")
        fields: dict[int, Field] = {}
        missing, entries = set(), {}
        for entry in range(start, end, entry_bytes):
            tag, kind, values = self._unpack(f"HH{self.word}", entry)
            entries[tag] = entry
            if kind >= len(TYPE_BYTES) or not TYPE_BYTES[kind]:
                continue
            length = values * TYPE_BYTES[kind]
            position = entry + 4 + self.word_bytes
            if length > self.word_bytes:
                (position,) = self._unpack(self.word, position)
            length = min(length, self._longest) if position + length <= size else size + 1
            if length > min(size, self._bytes_left):
                missing.add(tag)
            elif tag not in fields:
                self._bytes_left -= length
                content = data[position : position + length]
                fields[tag] = Field(kind, values, content, position)
        try:
            (following,) = self._unpack(self.word, end)
        except struct.error:
            following = 0
        return Directory(
            self.order, fields, offset, end, int(following), entries, frozenset(missing)
        )

    def chain(self, offset: int) -> Iterator[Directory]:
        """Return directories from an offset on, as far as they are whole; at most 100."""
        seen: set[int] = set()
        while offset and offset not in seen and len(seen) < MAX_DIRECTORIES:
            seen.add(offset)
            try:
                directory = self.read(offset)
            except ValueError:
                return
            yield directory
            offset = directory.next_offset

    def sub_directories(self, directory: Directory, tag: int) -> Iterator[Directory]:
        """Return the directories that a field of `directory` points to; at most 100."""
        for offset in directory.numbers(tag)[:MAX_DIRECTORIES]:
            try:
                yield self.read(int(offset))
            except (ValueError, OverflowError):  # outside the file, or infinite
                continue
