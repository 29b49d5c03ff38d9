"""Sixteen bits: Pillow decodes them, but keeps the upper eight of each only.

Its decoders are told in which byte order a file's numbers are. Told the wrong one, they keep
the lower eight bits, so that decoding twice gives all of them: no other decoder has to be
trusted with hostile bytes.
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

Open = Callable[[BytesIO], ImageFile.ImageFile]

_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER = {"L": "B", "B": "L"}
_DEEP_COLOURS = {"RGB;16": "RGB", "RGBX;16": "RGB", "RGBA;16": "RGBA"}
_COLOUR_MODES = frozenset({"RGB", "RGBA", "CMYK"})
_GRAY_AND_OPACITY = "LA;16B"


def deep_mode(image: ImageFile.ImageFile) -> tuple[str | None, list[Degradation]]:
    """Return `RGB`, `RGBA` or `LA` where a picture's file has 16 bits that Pillow cuts to 8.

    It has to be asked before the picture is loaded. Where they can't be had it is None, with
    a note.
    """
    modes = {_raw_mode(tile.args) for tile in image.tile}
    if _GRAY_AND_OPACITY in modes:
        return "LA", []
    bits = image.info.get("bit_depth", 8)  # of HEIC
    if isinstance(bits, int) and bits > 8:
        return None, [Degradation("bits", f"of its {bits} bits 8 were used")]
    if isinstance(image, TiffImageFile) and _has_deep_colours(image):
        if image.tag_v2.get(PLANAR_CONFIGURATION) == 2:
            _mend_planes(image)
            message = "of its 16 bits 8 were used: its colours lie in separate planes"
            return None, [Degradation("bits", message)]
        if not {mode[:-1] for mode in modes} <= set(_DEEP_COLOURS):
            return None, [Degradation("bits", "of its 16 bits 8 were used")]
    wanted = {_DEEP_COLOURS.get(mode[:-1]) for mode in modes}
    return (wanted.pop() if len(wanted) == 1 else None), []


def _has_deep_colours(image: TiffImageFile) -> bool:
    return image.mode in _COLOUR_MODES and 16 in np.atleast_1d(image.tag_v2.get(BITSPERSAMPLE, 0))


def _mend_planes(image: TiffImageFile) -> None:
    """Tell Pillow that uncompressed planes have 16 bits: it takes them for 8, and reads noise."""
    order = "L" if image.tag_v2.prefix == b"II" else "B"
    image.tile = [
        tile._replace(args=_with_raw_mode(tile.args, f"{raw};16{order}"))
        if len(raw := _raw_mode(tile.args)) == 1
        else tile
        for tile in image.tile
    ]


def read_deep(data: bytes, reader: Open, mode: str) -> Levels:
    """Return all 16 bits of a picture, HxWx2, 3 or 4, in the order in which Pillow loads it.

    Args:
        data: The file.
        reader: Opens it.
        mode: From `deep_mode`.
    """
    if mode == "LA":
        # Its four bytes a pixel, undisturbed: lightness, then opacity, upper byte first.
        four = _loaded(data, reader, lambda raw: "RGBA").astype(np.uint16)
        return np.stack([four[..., 0] << 8 | four[..., 1], four[..., 2] << 8 | four[..., 3]], -1)
    upper = _loaded(data, reader, lambda raw: raw)
    levels = upper.astype(np.uint16)
    del upper
    levels <<= 8
    levels |= _loaded(data, reader, _swapped)
    return levels


def _loaded(data: bytes, reader: Open, in_mode: Callable[[str], str]) -> NDArray[np.uint8]:
    image = reader(BytesIO(data))
    image.tile = [
        tile._replace(args=_with_raw_mode(tile.args, in_mode(_raw_mode(tile.args))))
        for tile in image.tile
    ]
    image.load()
    return np.asarray(image)


def _swapped(raw_mode: str) -> str:
    order = raw_mode[-1]
    return raw_mode[:-1] + _OTHER[_NATIVE if order == "N" else order]


def _raw_mode(args: object) -> str:
    return str(args[0] if isinstance(args, tuple) and args else args)


def _with_raw_mode(
    args: tuple[object, ...] | str | None, raw_mode: str
) -> tuple[object, ...] | str:
    return (raw_mode, *args[1:]) if isinstance(args, tuple) else raw_mode
