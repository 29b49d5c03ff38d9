"""Chooses the picture of a TIFF file: it may have thumbnails, masks, further pages, or be a raw.

Source: TIFF revision 6.0 (1992); TIFF/EP and Adobe's Technical Note on SubIFDs (1995); DNG 1.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from styled.photos.tiff_tags import Directory, TiffReader

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, COMPRESSION = 254, 255, 256, 257, 259
PHOTOMETRIC, SUB_DIRECTORIES = 262, 330
_REDUCED, _MASK = 1, 4
_OLD_REDUCED = 2
_TRANSPARENCY_MASK = 4
_COLOR_FILTER_ARRAY, _LINEAR_RAW = 32803, 34892
_RAW_COMPRESSIONS = frozenset({32767, 32769, 32770, 34713, 34892, 52546, 65000, 65535})
"""Sony, Epson, Samsung, Nikon, lossy DNG, DNG with JPEG XL, Kodak, Pentax."""


@dataclass(frozen=True, slots=True)
class TiffPicture:
    """The picture of a TIFF file.

    Attributes:
        directory: Of the picture.
        is_raw: Whether it is the data of a camera's sensor.
        is_reduced: Whether it calls itself a reduced copy; the file has no other.
        has_more_pages: Whether the file has further pictures at full size.
    """

    directory: Directory
    is_raw: bool
    is_reduced: bool
    has_more_pages: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as stored."""
        return _size(self.directory)


def find_picture(reader: TiffReader) -> TiffPicture | None:
    """Return the first picture at full size; if all are reduced copies the largest; or None."""
    pages = [
        [d for d in group if _is_picture(d)]
        for group in _groups(reader)
    ]  # fmt: skip
    full = [[d for d in group if not _is_reduced(d)] for group in pages]
    full = [group for group in full if group]
    everything = [directory for group in pages for directory in group]
    if not everything:
        return None
    # Within a page the largest one: sub-directories are the picture where the page is a preview,
    # and reduced copies of it where the file forgets to say so.
    candidates = full[0] if full else everything
    chosen = max(candidates, key=_pixels)
    return TiffPicture(
        chosen, is_raw=_is_raw(chosen), is_reduced=not full, has_more_pages=len(full) > 1
    )


def has_all_parts(directory: Directory) -> bool:
    """Return whether a picture has as many strips or tiles as its size demands.

    Decoders take those that are missing for black, and some say nothing.
    """
    width, height = _size(directory)
    planes = directory.number(_SAMPLES_PER_PIXEL, 1) if directory.number(_PLANAR, 1) == 2 else 1
    if _TILE_OFFSETS in directory:
        tile_width, tile_height = _tile_size(directory)
        needed = -(-width // max(tile_width, 1)) * -(-height // max(tile_height, 1))
        offsets = directory.fields[_TILE_OFFSETS]
    elif _STRIP_OFFSETS in directory:
        needed = -(-height // max(directory.number(_ROWS_PER_STRIP, height), 1))
        offsets = directory.fields[_STRIP_OFFSETS]
    else:
        return True  # decoding reports it
    return offsets.count >= needed * planes


def require_plausible_tiles(directory: Directory) -> None:
    """Check that tiles are not far larger than the picture: decoders make room for a whole one.

    Raises:
        ValueError: they are.
    """
    if _TILE_OFFSETS in directory:
        tile_width, tile_height = _tile_size(directory)
        if tile_width * tile_height > max(_MIN_LARGE_TILE, 4 * _pixels(directory)):
            raise ValueError(f"its tiles have {tile_width} x {tile_height} pixels")


def _tile_size(directory: Directory) -> tuple[int, int]:
    return directory.number(_TILE_WIDTH), directory.number(_TILE_LENGTH)


_STRIP_OFFSETS, _ROWS_PER_STRIP, _PLANAR = 273, 278, 284
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 322, 323, 324
_MIN_LARGE_TILE = 1 << 24


def describe(directory: Directory) -> str:
    """Return of what kind a picture is, for people."""
    bits = sorted({int(n) for n in directory.numbers(_BITS_PER_SAMPLE)}) or [1]
    channels = directory.number(_SAMPLES_PER_PIXEL, 1)
    kind = {2: ", signed", 3: ", floating point"}.get(directory.number(_SAMPLE_FORMAT, 1), "")
    compression = directory.number(COMPRESSION, 1)
    packed = _COMPRESSIONS.get(compression, f"compression {compression}")
    depth = " and ".join(map(str, bits))
    plural = "s" if channels != 1 else ""
    return f"{channels} channel{plural} of {depth} bits{kind}, {packed}"


_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _SAMPLE_FORMAT = 258, 277, 339
_COMPRESSIONS = {
    1: "not compressed", 2: "CCITT RLE", 3: "fax G3", 4: "fax G4", 5: "LZW", 6: "old JPEG",
    7: "JPEG", 8: "Deflate", 32773: "PackBits", 32946: "Deflate", 34712: "JPEG 2000",
    34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip


def _groups(reader: TiffReader) -> Iterator[list[Directory]]:
    """Return each page of a file, with its sub-directories after it."""
    for page in reader.chain(reader.first_offset):
        yield [page, *reader.sub_directories(page, SUB_DIRECTORIES)]


def _size(directory: Directory) -> tuple[int, int]:
    return directory.number(WIDTH), directory.number(HEIGHT)


def _pixels(directory: Directory) -> int:
    width, height = _size(directory)
    return width * height


def _is_picture(directory: Directory) -> bool:
    is_mask = (
        directory.number(NEW_SUBFILE_TYPE) & _MASK
        or directory.number(PHOTOMETRIC) == _TRANSPARENCY_MASK
    )
    return not is_mask and _pixels(directory) > 0


def _is_reduced(directory: Directory) -> bool:
    return bool(
        directory.number(NEW_SUBFILE_TYPE) & _REDUCED
        or directory.number(SUBFILE_TYPE) == _OLD_REDUCED
    )


def _is_raw(directory: Directory) -> bool:
    return (
        directory.number(PHOTOMETRIC) in (_COLOR_FILTER_ARRAY, _LINEAR_RAW)
        or directory.number(COMPRESSION) in _RAW_COMPRESSIONS
    )
