"""From a path to a `Photo`: upright, RGB, 8 bit, sRGB. Nothing in a file can crash this."""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base

from styled.degradation import Degradation
from styled.errors import InputIncomplete, InputRejected, StyledError, TooManyPixels
from styled.photos.colour import to_srgb
from styled.photos.containers import could_become_picture, excess_in, format_of, is_cut
from styled.photos.depth import Levels, deep_mode, read_deep
from styled.photos.heic import open_heic
from styled.photos.metadata import DAMAGE, exif_of, metadata_of
from styled.photos.photo import Photo
from styled.photos.shortage import memory_shortage_at

MIN_EDGE_PX = 32
DEFAULT_MAX_PIXELS = 200_000_000
_BYTES_PER_PIXEL = 20
"""What decoding takes: libraries hold the picture, or its coefficients, more than once."""

_MAX_CAUSE_LENGTH = 200
_READABLE = "styled reads JPEG, PNG, TIFF, WebP, AVIF, HEIC, BMP and GIF."

# Only these readers ever see a file. Pillow's own registry holds dozens more, among them
# EPS, which runs Ghostscript.
_READERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.jpeg_factory,  # MPO, the JPEG with several pictures, included
    "png": PngImagePlugin.PngImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
    "heic": open_heic,
}

# EXIF 2.3, orientation: what makes a picture upright.
_UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, name: str = "the file") -> Photo:
    """Decode the bytes of a picture file, of which the first frame is used.

    Raises InputRejected if it can never be decoded, InputIncomplete if it ends too early,
    MemoryShortage if there is not enough memory to decode it now; nothing else, whatever the
    bytes are. `name` is what messages call the file.
    """
    if not data:
        raise InputRejected(f"{name} is empty", "Copy it again.")
    found = format_of(data)
    if found is None:
        if could_become_picture(data):
            raise _incomplete(name)
        raise InputRejected(f"{name} is not a picture that styled can read", _READABLE)
    excess = excess_in(data, found)
    if excess is not None:
        raise InputRejected(
            f"{name} has {excess}, which no camera or editor writes",
            "Open it in an image editor and save it again.",
        )
    cut = is_cut(data, found)
    try:
        with (
            memory_shortage_at(f"decode {name}"),
            _pillow_set_up(max_pixels),
            _quiet_libraries(found),
        ):
            return _decode(data, found, cut, max_pixels, name)
    except StyledError:
        raise
    except Image.DecompressionBombError as error:
        # Found by Pillow while opening: a WebP, or a GIF whose frame exceeds its canvas.
        raise _too_large(name, "the header claims more pixels", max_pixels) from error
    except Exception as error:
        # The one place where anything is caught: on damaged or hostile bytes Pillow raises
        # nearly every built-in type (OSError, SyntaxError, struct.error, KeyError,
        # AssertionError...), which all mean that this input can't be decoded.
        if cut or "image file is truncated" in str(error):
            raise _incomplete(name) from error
        raise InputRejected(
            f"{name} can't be decoded as {found.upper()}: {_cause(error)}",
            "Open it in an image editor and save it again.",
        ) from error


def _decode(data: bytes, found: str, cut: bool, max_pixels: int, name: str) -> Photo:
    if found == "png":
        # Pillow opens a PNG where its pixels begin; a bomb is known from its first bytes.
        _check_size(struct.unpack_from(">II", data, 16), max_pixels, name)
    # Of these files the reader of WebP alone makes room for the picture when it opens it.
    opened_pixels = min(_webp_pixels(data), max_pixels) if found == "webp" else 0
    with memory_shortage_at(f"decode {name}", opened_pixels * _BYTES_PER_PIXEL):
        image = _READERS[found](BytesIO(data))
    _check_size(image.size, max_pixels, name)
    if cut:
        raise _incomplete(name)
    with memory_shortage_at(f"decode {name}", image.width * image.height * _BYTES_PER_PIXEL):
        return _loaded(image, data, found, name)


def _webp_pixels(data: bytes) -> int:
    """Return how many pixels a WebP has by its first chunk, see RFC 9649; 0 for an unknown one."""
    kind, first = data[12:16], data[20:30]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(first[at : at + 3], "little") for at in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(first[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(first[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        return 0
    return width * height


def _loaded(image: ImageFile.ImageFile, data: bytes, found: str, name: str) -> Photo:
    of_frames = _frames_left_out(image)
    mode, of_depth = deep_mode(image)
    if found != "tiff":
        image.load()  # the EXIF data of a PNG may follow its pixels
    orientation = _orientation(image)
    metadata, of_metadata = metadata_of(image)
    image.load()  # turns a TIFF upright and forgets its orientation
    deep = None if mode is None else read_deep(data, _READERS[found], mode)
    colours = to_srgb(image, deep)
    rgb, alpha, deep = colours.image, colours.alpha, colours.deep
    del image
    if alpha is not None and alpha.getextrema()[1] == 0:
        raise InputRejected(
            f"{name} is transparent all over: there is nothing to paint",
            "Open it in an image editor and look at its transparency (alpha channel).",
        )
    if found != "tiff" and orientation in _UPRIGHT_BY:
        rgb = rgb.transpose(_UPRIGHT_BY[orientation])
        alpha = None if alpha is None else alpha.transpose(_UPRIGHT_BY[orientation])
        deep = None if deep is None else _turned(deep, orientation)
    return Photo(
        rgb,
        found,
        rgb.width,
        rgb.height,
        orientation,
        colours.icc,
        degraded=(*of_frames, *of_metadata, *of_depth, *colours.degraded),
        alpha=alpha,
        deep=deep,
        is_gray=colours.is_gray,
        profile=colours.profile,
        metadata=metadata,
    )


def _turned(levels: Levels, orientation: int) -> Levels:
    """Do to HxWxC what `_UPRIGHT_BY` has Pillow do to a picture."""
    if orientation >= 5:
        levels = levels.swapaxes(0, 1)  # TRANSPOSE; what remains are flips
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(levels[rows, columns])


_PILLOW_LOCK = threading.Lock()


@contextmanager
def _pillow_set_up(max_pixels: int) -> Iterator[None]:
    """Let Pillow accept up to `max_pixels`, and keep its warnings to itself.

    Both are settings of the process, so one thread at a time changes them and puts them
    back. Another user of Pillow is never left without a limit or with a lower one.
    """
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        before = Image.MAX_IMAGE_PIXELS
        if before is not None:
            # Pillow refuses what exceeds twice its limit.
            Image.MAX_IMAGE_PIXELS = max(before, (max_pixels + 1) // 2)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _quiet_libraries(found: str) -> Iterator[None]:
    """Keep what libtiff writes to standard error by itself out of the log while it decodes.

    It writes a line for each damaged row. This too is a setting of the process, and its own
    log goes elsewhere.
    """
    if found != "tiff":
        yield
        return
    with ExitStack() as opened:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            opened.callback(os.close, nowhere)
            kept = os.dup(_STANDARD_ERROR)
        except OSError:  # there is none, or no file may be opened any more
            yield
            return
        os.dup2(nowhere, _STANDARD_ERROR)
    try:
        yield
    finally:
        os.dup2(kept, _STANDARD_ERROR)
        os.close(kept)


_STANDARD_ERROR = 2


def _check_size(size: tuple[int, ...], max_pixels: int, name: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)
    if min(width, height) < MIN_EDGE_PX:
        raise InputRejected(
            f"{name} is too small: {width} x {height} pixels",
            f"Each edge needs at least {MIN_EDGE_PX} pixels.",
        )


def _frames_left_out(image: ImageFile.ImageFile) -> list[Degradation]:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Not counted: a hostile chain of pages can take hours to walk.
        message = "only the first of several pages was used"
        return [Degradation("frames", message)] if image.is_animated else []
    frames: int = getattr(image, "n_frames", 1)
    message = f"only the first of {frames} frames was used"
    return [Degradation("frames", message)] if frames > 1 else []


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation, 1 where there is none or it makes no sense."""
    try:
        value = exif_of(image).get(Base.Orientation, 1)
    except DAMAGE:
        return 1
    return value if value in range(1, 9) else 1


def _too_large(name: str, size: str, max_pixels: int) -> TooManyPixels:
    return TooManyPixels(
        f"{name} is too large: {size}; the limit is {max_pixels} pixels",
        "Save it smaller, or raise `intake.max_pixels` in the configuration.",
    )


def _incomplete(name: str) -> InputIncomplete:
    return InputIncomplete(
        f"{name} ends too early: part of the picture is missing",
        "If it is not still being copied, copy it again.",
    )


def _cause(error: Exception) -> str:
    text = "".join(c for c in str(error) if c.isprintable())[:_MAX_CAUSE_LENGTH]
    if text and not any(c.isalpha() for c in text):  # a KeyError's bare number
        return f"it holds the unknown value {text}"
    return text or type(error).__name__
