"""Decodes image files to `Photo`s: upright, RGB, 8 bit, sRGB. Safe for hostile files."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFile

from styled.degradation import Degradation
from styled.errors import InputIncomplete, InputRejected, StyledError
from styled.photos.color import SrgbImage, hdr_image_to_srgb, image_to_srgb, raster_to_srgb
from styled.photos.completeness import is_truncated
from styled.photos.formats import READABLE, could_become_picture, format_of, other_kind_of
from styled.photos.heif_boxes import heif_picture
from styled.photos.jpeg import find_excess
from styled.photos.limits import DEFAULT_MAX_PIXELS, Limits
from styled.photos.photo import Photo
from styled.photos.raster import Levels, Raster
from styled.photos.readers import Damaged, Decoded, EncodedFile, Unreadable, read_picture
from styled.photos.shortage import memory_shortage_at
from styled.photos.standard_error import captured_standard_error

_MAX_CAUSE_LENGTH = 200

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

_LACKS_ITS_END = Degradation(
    "damaged", "the file ends too early, but all of the picture is there"
)  # fmt: skip


_PAINTED_DAMAGED = "the photo is damaged, and was painted as far as it goes"


def decode_photo(
    data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, paint_damaged: bool = False,
    name: str = "the file",
) -> Photo:  # fmt: skip
    """Decode the first frame of an image file.

    Args:
        data: The bytes of the file.
        max_pixels: Most pixels that are accepted.
        paint_damaged: Whether pictures are accepted of which a part is missing.
        name: Name of the file in error messages.

    Raises:
        InputRejected: The file can never be decoded.
        InputIncomplete: The file ends too early.
        MemoryShortage: There is not enough memory to decode it now.

    No other exception is raised, whatever the bytes are.
    """
    if not data:
        raise InputRejected(f"{name} is empty", "Copy it again.")
    format = _require_format(data, name)
    excess = find_excess(data) if format == "jpeg" else None
    if excess is not None:
        raise InputRejected(
            f"{name} has {excess}, which no camera or editor writes",
            "Open it in an image editor and save it again.",
        )
    truncated = is_truncated(data, format)
    limits = Limits(max_pixels, name)
    source = EncodedFile(data, truncated, False, limits)
    notes = (_LACKS_ITS_END,) if truncated else ()
    try:
        return _decode(source, format, notes)
    except StyledError:
        raise
    except Image.DecompressionBombError as error:
        # Raised by Pillow on opening: a WebP, or a GIF whose frame exceeds its canvas.
        raise limits.too_large("the header claims more pixels") from error
    except Exception as error:
        # Every exception is caught here: on damaged or hostile bytes the decoders raise nearly
        # every built-in type (OSError, SyntaxError, struct.error, KeyError, AssertionError...),
        # and they all mean that this input can't be decoded.
        if paint_damaged:
            with suppress(Exception):  # the first error tells more
                note = Degradation("damaged", f"{_PAINTED_DAMAGED}: {_damage(error, truncated)}")
                return _decode(replace(source, tolerant=True), format, (note,))
        if truncated or "image file is truncated" in str(error):
            raise _incomplete(name) from error
        if isinstance(error, Damaged):
            raise InputRejected(
                f"{name} is damaged: {error}",
                "Copy it again from where it came from.",
                "Or paint what is left of it: set `intake.damaged` to `paint`.",
            ) from error
        raise InputRejected(
            f"{name} can't be decoded as {format.upper()}: {_cause(error)}",
            "Open it in an image editor and save it as a JPEG, PNG or TIFF of 8 or 16 bits.",
        ) from error


def _decode(source: EncodedFile, format: str, notes: tuple[Degradation, ...]) -> Photo:
    with (
        _pillow_settings(source.limits.max_pixels, tolerant=source.tolerant),
        captured_standard_error() if format == "tiff" else nullcontext(),
        memory_shortage_at(f"decode {source.limits.name}", source.limits),
    ):
        return _photo(read_picture(source, format), format, notes, source.limits.name)


def _damage(error: Exception, truncated: bool) -> str:
    if truncated or "image file is truncated" in str(error):
        return "its data ends too early"
    return _cause(error)


def _require_format(data: bytes, name: str) -> str:
    format = format_of(data)
    if format == "heic" and heif_picture(data) is None and not is_truncated(data, format):
        format = None  # it has the container of HEIC, and nothing in it that tells of a picture
    if format is not None:
        return format
    if could_become_picture(data):
        raise _incomplete(name)
    other = other_kind_of(data)
    if other is not None:
        kind, remedy = other
        raise InputRejected(f"{name} is {kind}, which styled can't read", remedy)
    raise InputRejected(f"{name} is not a picture that styled can read", READABLE)


def _photo(
    decoded: Decoded, format: str, notes: tuple[Degradation, ...], name: str
) -> Photo:  # fmt: skip
    file_metadata = decoded.file_metadata
    notes = (*decoded.degraded, *file_metadata.degraded, *notes)
    srgb = _to_srgb(decoded)
    rgb, alpha, deep = srgb.image, srgb.alpha, srgb.deep
    del decoded
    if alpha is not None and alpha.getextrema()[1] == 0:
        raise InputRejected(
            f"{name} is transparent all over: there is nothing to paint",
            "Open it in an image editor and look at its transparency (alpha channel).",
        )
    orientation = file_metadata.orientation
    if orientation in _UPRIGHT_TRANSPOSE:
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
        degraded=(*notes, *srgb.degraded),
        alpha=alpha,
        deep=deep,
        is_gray=srgb.is_gray,
        profile=srgb.profile,
        metadata=file_metadata.metadata,
    )


def _to_srgb(decoded: Decoded) -> SrgbImage:
    space, icc = decoded.file_metadata.space, decoded.file_metadata.icc
    pixels = decoded.pixels
    if space is not None and space.is_hdr and icc is None:
        return hdr_image_to_srgb(pixels, space, decoded.alpha)
    if space is not None and icc is None:
        icc = space.icc_profile()
    if isinstance(pixels, Raster):
        return raster_to_srgb(pixels, icc)
    return image_to_srgb(pixels, icc, decoded.alpha)


def _turn_upright(levels: Levels, orientation: int) -> Levels:
    """Transpose HxWxC levels as `_UPRIGHT_TRANSPOSE` does with a Pillow image."""
    if orientation >= 5:
        levels = levels.swapaxes(0, 1)  # TRANSPOSE; the rest are flips
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(levels[rows, columns])


_PILLOW_LOCK = threading.Lock()


@contextmanager
def _pillow_settings(max_pixels: int, *, tolerant: bool) -> Iterator[None]:
    """Make Pillow accept up to `max_pixels`, and damaged files if asked; suppress its warnings.

    These are settings of the whole process, so a lock lets one thread at a time change and
    restore them. For other code that uses Pillow meanwhile the limit is never removed or
    lowered.
    """
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        previous, was_tolerant = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        if previous is not None:
            # Pillow rejects images of more than twice its limit.
            Image.MAX_IMAGE_PIXELS = max(previous, (max_pixels + 1) // 2)
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = previous
            ImageFile.LOAD_TRUNCATED_IMAGES = was_tolerant


def _incomplete(name: str) -> InputIncomplete:
    return InputIncomplete(
        f"{name} ends too early: part of the picture is missing",
        "If it is not still being copied, copy it again.",
        "Or paint what is left of it: set `intake.damaged` to `paint`.",
    )


def _cause(error: BaseException) -> str:
    if isinstance(error, Unreadable) and error.__cause__ is not None:
        return f"{_cause(error.__cause__)}; it has {error}"
    text = "".join(c if c.isprintable() else " " for c in str(error)).strip()[:_MAX_CAUSE_LENGTH]
    if text and not any(c.isalpha() for c in text):  # a KeyError's bare number
        return f"it holds the unknown value {text}"
    return text or type(error).__name__
