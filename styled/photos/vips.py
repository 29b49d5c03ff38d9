"""Reads what Pillow can't with libvips: levels of more than 8 bits, and unusual kinds of TIFF.

It also tells whether a JPEG lacks data, and applies colour profiles in 16 bits. libvips reads TIFF
by libtiff, PNG by spng and AVIF by libheif. Each call below names one of its readers, so that no
other can be reached by a hostile file.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from styled.photos.raster import CHANNELS, Raster, Space, to_sixteen_bit, widen

# libvips reads these when it is loaded. It would write its warnings to standard error, and compute
# on all cores, which the engine has.
os.environ.setdefault("VIPS_WARNING", "0")
os.environ.setdefault("VIPS_CONCURRENCY", "1")

import pyvips  # after the environment is set

Error = pyvips.Error

pyvips.cache_set_max(0)  # no picture is read twice
logging.getLogger("pyvips").setLevel(logging.ERROR)  # its warnings are read from its buffer below
_vips = pyvips.vips_lib

_LOCK = threading.Lock()
"""The buffer of error messages is one for the whole process."""

_LOADERS = {
    "jpeg": pyvips.Image.jpegload_buffer,
    "tiff": pyvips.Image.tiffload_buffer,
    "png": pyvips.Image.pngload_buffer,
    "avif": pyvips.Image.heifload_buffer,
    "webp": pyvips.Image.webpload_buffer,
    "gif": pyvips.Image.gifload_buffer,
}
FORMATS = frozenset(_LOADERS)

_SPACES: dict[str, Space] = {
    "b-w": "gray", "grey16": "gray", "srgb": "rgb", "rgb16": "rgb", "scrgb": "rgb", "rgb": "rgb",
    "cmyk": "cmyk", "multiband": "gray",
}  # fmt: skip
_LAB = frozenset({"lab", "labs", "labq", "xyz", "yxy"})


def size_of(data: bytes, format: str) -> tuple[int, int]:
    """Return width and height without decoding the pixels.

    Raises:
        Error: The file can't be read.
    """
    image = _open(data, format, "none")
    return image.width, image.height


def read(data: bytes, format: str, *, tolerant: bool = False) -> Raster | NDArray[np.uint8]:
    """Decode an image.

    Args:
        data: The bytes of the file.
        format: One of `FORMATS`.
        tolerant: Whether to return what there is of a damaged image.

    Returns:
        A `Raster`; HxWxC levels if they have 8 bits: 1 or 2 channels for grey, 3 or 4 for RGB, 5
        for CMYK and alpha (always opaque, if the file has none).

    Raises:
        Error: The file can't be read.
    """
    image = _open(data, format, "none" if tolerant else "error")
    interpretation = str(image.interpretation)
    is_srgb = interpretation in _LAB
    if is_srgb:
        colors = image.bands if image.bands <= 3 else 3
        rest = image.extract_band(3, n=image.bands - 3) if image.bands > 3 else None
        image = image.extract_band(0, n=colors).copy(interpretation=interpretation)
        image = image.colourspace("rgb16")
        if rest is not None:
            # libvips says that these levels are signed, like those of a and b, but they are not.
            image = image.bandjoin(rest.copy(format="ushort"))
        interpretation = "rgb16"
    levels: NDArray[Any] = image.numpy()
    levels = levels.reshape(image.height, image.width, image.bands)
    if format == "avif" and levels.dtype == np.uint16:
        levels = widen(levels, image.get("bits-per-sample"))
    space = _SPACES.get(interpretation, "gray")
    channels = CHANNELS[space]
    if levels.shape[2] < channels:
        space, channels = "gray", 1
    if levels.dtype == np.uint8:
        if space == "cmyk" and levels.shape[2] == channels:
            opaque = np.full((*levels.shape[:2], 1), 255, dtype=np.uint8)
            return np.concatenate([levels, opaque], axis=2)
        return np.ascontiguousarray(levels[..., : channels + 1])
    colors16, degraded = to_sixteen_bit(levels[..., :channels])
    alpha = None
    if levels.shape[2] > channels:
        alpha, _ = to_sixteen_bit(levels[..., channels])
    return Raster(np.ascontiguousarray(colors16), space, alpha, is_srgb, degraded)


def _open(data: bytes, format: str, fail_on: str) -> Any:
    return _LOADERS[format](data, fail_on=fail_on, access="sequential")


# What libjpeg says of data that is missing or wrong; its other warnings are harmless.
_DAMAGE = (
    ("premature end", "its data ends too early"),
    ("bad Huffman code", "part of its data is wrong"),
    ("bad arithmetic code", "part of its data is wrong"),
    ("instead of RST", "part of its data is wrong"),
)


def damage_of_jpeg(data: bytes) -> str | None:
    """Return what is missing from a JPEG or wrong with it, None if its data is whole.

    Pillow fills what is missing with grey and says nothing. The data is decoded once more, at an
    eighth of the size, which takes about half the time of decoding it.
    """
    with _LOCK:
        _vips.vips_error_clear()
        try:
            image = pyvips.Image.jpegload_buffer(
                data, shrink=8, fail_on="none", access="sequential", unlimited=True
            )
            image.avg()
        except pyvips.Error as error:
            messages = str(error)
        else:
            messages = pyvips.ffi.string(_vips.vips_error_buffer()).decode("utf-8", "replace")
        _vips.vips_error_clear()
    return next((meaning for sign, meaning in _DAMAGE if sign in messages), None)


def damage_of_tiff(data: bytes) -> str | None:
    """Return what is wrong with the data of a TIFF that is compressed as JPEG; None if it is whole.

    libtiff only warns of it. Warnings about the fields of the file come earlier, on opening.
    """
    try:
        image = pyvips.Image.tiffload_buffer(data, fail_on="warning", access="sequential")
    except pyvips.Error:
        return None
    try:
        image.avg()
    except pyvips.Error:
        return "part of its data is missing or wrong"
    return None


def apply_profile(colors: NDArray[np.uint16], space: Space, icc: bytes) -> NDArray[np.uint16]:
    """Convert 16-bit levels from a colour profile, of tables for example, to sRGB.

    Relative colorimetric, with black point compensation.

    Args:
        colors: HxWxC.
        space: What the channels are.
        icc: The profile.

    Raises:
        Error: The profile can't be used.
    """
    height, width, channels = colors.shape
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(colors).data, width, height, channels, "ushort"
    )
    interpretation = {"gray": "grey16", "rgb": "rgb16", "cmyk": "cmyk"}[space]
    image = image.copy(interpretation=interpretation)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    converted = image.icc_transform(
        "srgb", embedded=True, depth=16, intent="relative", black_point_compensation=True
    )
    levels: NDArray[np.uint16] = converted.numpy().reshape(height, width, -1)
    return levels
