"""Decodes image files to `Photo`s: upright, RGB, 8 bit, sRGB. Safe for hostile files."""

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
from styled.photos.color import to_srgb
from styled.photos.containers import could_become_picture, find_excess, format_of, is_truncated
from styled.photos.heic import open_heic
from styled.photos.metadata import EXIF_ERRORS, exif_of, metadata_of
from styled.photos.photo import Photo
from styled.photos.shortage import memory_shortage_at
from styled.photos.sixteen_bit import Levels, read_sixteen_bit, sixteen_bit_mode

MIN_EDGE_PX = 32
DEFAULT_MAX_PIXELS = 200_000_000
_DECODING_BYTES_PER_PIXEL = 20
"""Memory that decoding takes: libraries hold the image, or its coefficients, more than once."""

_MAX_CAUSE_LENGTH = 200
_READABLE = "styled reads JPEG, PNG, TIFF, WebP, AVIF, HEIC, BMP and GIF."

# Only these readers are given a file. Pillow's own registry holds dozens more, among them
# EPS, which runs Ghostscript.
_READERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.jpeg_factory,  # including MPO, a JPEG with several images
    "png": PngImagePlugin.PngImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
    "heic": open_heic,
}

# EXIF 2.3 orientation -> the transposition that makes an image upright.
_UPRIGHT_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_photo(
    data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, name: str = "the file"
) -> Photo:
    """Decode the first frame of an image file.

    Args:
        data: The bytes of the file.
        max_pixels: Most pixels that are accepted.
        name: Name of the file in error messages.

    Raises:
        InputRejected: The file can never be decoded.
        InputIncomplete: The file ends too early.
        MemoryShortage: There is not enough memory to decode it now.

    No other exception is raised, whatever the bytes are.
    """
    if not data:
        raise InputRejected(f"{name} is empty", "Copy it again.")
    format = format_of(data)
    if format is None:
        if could_become_picture(data):
            raise _incomplete(name)
        raise InputRejected(f"{name} is not a picture that styled can read", _READABLE)
    excess = find_excess(data, format)
    if excess is not None:
        raise InputRejected(
            f"{name} has {excess}, which no camera or editor writes",
            "Open it in an image editor and save it again.",
        )
    truncated = is_truncated(data, format)
    try:
        with (
            memory_shortage_at(f"decode {name}"),
            _pillow_limits(max_pixels),
            _silence_libtiff(format),
        ):
            return _decode(data, format, truncated, max_pixels, name)
    except StyledError:
        raise
    except Image.DecompressionBombError as error:
        # Raised by Pillow on opening: a WebP, or a GIF whose frame exceeds its canvas.
        raise _too_large(name, "the header claims more pixels", max_pixels) from error
    except Exception as error:
        # Every exception is caught here: on damaged or hostile bytes Pillow raises nearly every
        # built-in type (OSError, SyntaxError, struct.error, KeyError, AssertionError...), and
        # they all mean that this input can't be decoded.
        if truncated or "image file is truncated" in str(error):
            raise _incomplete(name) from error
        raise InputRejected(
            f"{name} can't be decoded as {format.upper()}: {_cause(error)}",
            "Open it in an image editor and save it again.",
        ) from error


def _decode(data: bytes, format: str, truncated: bool, max_pixels: int, name: str) -> Photo:
    if format == "png":
        # Opening a PNG reads it up to its pixels; its header already shows whether it is a
        # decompression bomb.
        _check_size(struct.unpack_from(">II", data, 16), max_pixels, name)
    # Only the WebP reader allocates memory for the whole image when it opens a file.
    pixels_on_open = min(_webp_pixels(data), max_pixels) if format == "webp" else 0
    with memory_shortage_at(f"decode {name}", pixels_on_open * _DECODING_BYTES_PER_PIXEL):
        image = _READERS[format](BytesIO(data))
    _check_size(image.size, max_pixels, name)
    if truncated:
        raise _incomplete(name)
    with memory_shortage_at(
        f"decode {name}", image.width * image.height * _DECODING_BYTES_PER_PIXEL
    ):
        return _load(image, data, format, name)


def _webp_pixels(data: bytes) -> int:
    """Return the number of pixels that the first chunk of a WebP declares (RFC 9649), else 0."""
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


def _load(image: ImageFile.ImageFile, data: bytes, format: str, name: str) -> Photo:
    frame_notes = _ignored_frames(image)
    mode, depth_notes = sixteen_bit_mode(image)
    if format != "tiff":
        image.load()  # the EXIF data of a PNG may follow its pixels
    orientation = _orientation(image)
    metadata, metadata_notes = metadata_of(image)
    image.load()  # turns a TIFF upright and removes its orientation
    deep = None if mode is None else read_sixteen_bit(data, _READERS[format], mode)
    srgb = to_srgb(image, deep)
    rgb, alpha, deep = srgb.image, srgb.alpha, srgb.deep
    del image
    if alpha is not None and alpha.getextrema()[1] == 0:
        raise InputRejected(
            f"{name} is transparent all over: there is nothing to paint",
            "Open it in an image editor and look at its transparency (alpha channel).",
        )
    if format != "tiff" and orientation in _UPRIGHT_TRANSPOSE:
        rgb = rgb.transpose(_UPRIGHT_TRANSPOSE[orientation])
        alpha = None if alpha is None else alpha.transpose(_UPRIGHT_TRANSPOSE[orientation])
        deep = None if deep is None else _turn_upright(deep, orientation)
    return Photo(
        rgb,
        format,
        rgb.width,
        rgb.height,
        orientation,
        srgb.icc,
        degraded=(*frame_notes, *metadata_notes, *depth_notes, *srgb.degraded),
        alpha=alpha,
        deep=deep,
        is_gray=srgb.is_gray,
        profile=srgb.profile,
        metadata=metadata,
    )


def _turn_upright(levels: Levels, orientation: int) -> Levels:
    """Transpose HxWxC levels as `_UPRIGHT_TRANSPOSE` does with a Pillow image."""
    if orientation >= 5:
        levels = levels.swapaxes(0, 1)  # TRANSPOSE; the rest are flips
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(levels[rows, columns])


_PILLOW_LOCK = threading.Lock()


@contextmanager
def _pillow_limits(max_pixels: int) -> Iterator[None]:
    """Make Pillow accept up to `max_pixels`, and suppress its warnings.

    Both are settings of the whole process, so a lock lets one thread at a time change and
    restore them. For other code that uses Pillow meanwhile the limit is never removed or
    lowered.
    """
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        previous = Image.MAX_IMAGE_PIXELS
        if previous is not None:
            # Pillow rejects images of more than twice its limit.
            Image.MAX_IMAGE_PIXELS = max(previous, (max_pixels + 1) // 2)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = previous


@contextmanager
def _silence_libtiff(format: str) -> Iterator[None]:
    """Redirect standard error to /dev/null while libtiff decodes.

    libtiff writes a line there for each damaged row. This affects the whole process; its log
    goes to another file descriptor.
    """
    if format != "tiff":
        yield
        return
    with ExitStack() as stack:
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, null)
            saved_stderr = os.dup(_STDERR_FD)
        except OSError:  # standard error is closed, or too many files are open
            yield
            return
        os.dup2(null, _STDERR_FD)
    try:
        yield
    finally:
        os.dup2(saved_stderr, _STDERR_FD)
        os.close(saved_stderr)


_STDERR_FD = 2


def _check_size(size: tuple[int, ...], max_pixels: int, name: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)
    if min(width, height) < MIN_EDGE_PX:
        raise InputRejected(
            f"{name} is too small: {width} x {height} pixels",
            f"Each edge needs at least {MIN_EDGE_PX} pixels.",
        )


def _ignored_frames(image: ImageFile.ImageFile) -> list[Degradation]:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # The pages are not counted: following a hostile chain of them can take hours.
        message = "only the first of several pages was used"
        return [Degradation("frames", message)] if image.is_animated else []
    frames: int = getattr(image, "n_frames", 1)
    message = f"only the first of {frames} frames was used"
    return [Degradation("frames", message)] if frames > 1 else []


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation, 1 if there is none or it is invalid."""
    try:
        value = exif_of(image).get(Base.Orientation, 1)
    except EXIF_ERRORS:
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
