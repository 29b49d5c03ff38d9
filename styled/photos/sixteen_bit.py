"""Decodes 16-bit images with Pillow, which keeps only the upper 8 bits of each level.

Pillow's decoders take the byte order of the file as a parameter. With the wrong one they keep
the lower 8 bits, so that decoding twice gives all 16. No other decoder has to be trusted with
hostile bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PLANAR_CONFIGURATION, TiffImageFile

from styled.degradation import Degradation

Levels = NDArray[np.uint16]

Reader = Callable[[BytesIO], ImageFile.ImageFile]

_NATIVE_ORDER = "L" if sys.byteorder == "little" else "B"
_OTHER_ORDER = {"L": "B", "B": "L"}
_SIXTEEN_BIT_COLORS = {"RGB;16": "RGB", "RGBX;16": "RGB", "RGBA;16": "RGBA"}
_COLOR_MODES = frozenset({"RGB", "RGBA", "CMYK"})
_GRAY_ALPHA_RAW_MODE = "LA;16B"


def sixteen_bit_mode(image: ImageFile.ImageFile) -> tuple[str | None, list[Degradation]]:
    """Return the mode of a 16-bit image that Pillow reduces to 8 bits: `RGB`, `RGBA` or `LA`.

    None for other images; with a note if an image has more than 8 bits that can't be read. Must be
    called before the image is loaded.
    """
    modes = {_raw_mode(tile.args) for tile in image.tile}
    if _GRAY_ALPHA_RAW_MODE in modes:
        return "LA", []
    bits = image.info.get("bit_depth", 8)  # set for HEIC
    if isinstance(bits, int) and bits > 8:
        return None, [Degradation("bits", f"of its {bits} bits 8 were used")]
    if isinstance(image, TiffImageFile) and _has_sixteen_bit_colors(image):
        if image.tag_v2.get(PLANAR_CONFIGURATION) == 2:
            _set_planar_depth(image)
            message = "of its 16 bits 8 were used: its colours lie in separate planes"
            return None, [Degradation("bits", message)]
        if not {mode[:-1] for mode in modes} <= set(_SIXTEEN_BIT_COLORS):
            return None, [Degradation("bits", "of its 16 bits 8 were used")]
    found_modes = {_SIXTEEN_BIT_COLORS.get(mode[:-1]) for mode in modes}
    return (found_modes.pop() if len(found_modes) == 1 else None), []


def _has_sixteen_bit_colors(image: TiffImageFile) -> bool:
    return image.mode in _COLOR_MODES and 16 in np.atleast_1d(image.tag_v2.get(BITSPERSAMPLE, 0))


def _set_planar_depth(image: TiffImageFile) -> None:
    """Make Pillow read uncompressed planes as 16 bits; it takes them for 8, which gives noise."""
    order = "L" if image.tag_v2.prefix == b"II" else "B"
    image.tile = [
        tile._replace(args=_with_raw_mode(tile.args, f"{raw};16{order}"))
        if len(raw := _raw_mode(tile.args)) == 1
        else tile
        for tile in image.tile
    ]


def read_sixteen_bit(data: bytes, reader: Reader, mode: str) -> Levels:
    """Return an image with all 16 bits: HxWxC with 2, 3 or 4 channels, oriented as Pillow loads it.

    Args:
        data: The bytes of the file.
        reader: Opens the file as a Pillow image.
        mode: The image's mode, from `sixteen_bit_mode`.
    """
    if mode == "LA":
        # As RGBA its four bytes per pixel are kept as they are: grey, then alpha, upper byte first.
        bytes_ = _load(data, reader, lambda raw: "RGBA").astype(np.uint16)
        return np.stack(
            [bytes_[..., 0] << 8 | bytes_[..., 1], bytes_[..., 2] << 8 | bytes_[..., 3]], -1
        )
    upper = _load(data, reader, lambda raw: raw)
    levels = upper.astype(np.uint16)
    del upper
    levels <<= 8
    levels |= _load(data, reader, _swap_byte_order)
    return levels


def _load(data: bytes, reader: Reader, to_raw_mode: Callable[[str], str]) -> NDArray[np.uint8]:
    image = reader(BytesIO(data))
    image.tile = [
        tile._replace(args=_with_raw_mode(tile.args, to_raw_mode(_raw_mode(tile.args))))
        for tile in image.tile
    ]
    image.load()
    return np.asarray(image)


def _swap_byte_order(raw_mode: str) -> str:
    order = raw_mode[-1]
    return raw_mode[:-1] + _OTHER_ORDER[_NATIVE_ORDER if order == "N" else order]


def _raw_mode(args: object) -> str:
    return str(args[0] if isinstance(args, tuple) and args else args)


def _with_raw_mode(
    args: tuple[object, ...] | str | None, raw_mode: str
) -> tuple[object, ...] | str:
    return (raw_mode, *args[1:]) if isinstance(args, tuple) else raw_mode
