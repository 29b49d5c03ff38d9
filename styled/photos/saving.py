"""Levels to the bytes of a file, format by format. The same levels always give the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile

from styled.errors import ConfigError
from styled.photos.heic import save_heic
from styled.photos.metadata import as_photoshop_segment
from styled.photos.picture import Picture
from styled.photos.png import save_png
from styled.photos.tiff import save_tiff

EXTENSIONS = {
    "jpeg": ".jpg",
    "png": ".png",
    "tiff": ".tif",
    "webp": ".webp",
    "bmp": ".bmp",
    "gif": ".gif",
    "avif": ".avif",
    "heic": ".heic",
}
_LONGEST_EDGE_PX = {
    "jpeg": 65_500, "webp": 16_383, "gif": 65_535, "avif": 65_535, "heic": 16_384,
}  # fmt: skip

MODES = {
    "jpeg": {"L", "RGB", "CMYK"},
    "png": {"L", "LA", "RGB", "RGBA"},
    "tiff": {"L", "LA", "RGB", "RGBA", "CMYK"},
    "webp": {"RGB", "RGBA"},
    "bmp": {"L", "RGB"},
    "gif": {"RGB", "RGBA"},
    "avif": {"RGB", "RGBA"},
    "heic": {"RGB", "RGBA"},
}
"""What the pixels of a file may be."""

DEEP_FORMATS = frozenset({"png", "tiff"})
UNREAD_DEEP_MODES = {"tiff": frozenset({"LA"})}
"""What a file of 16 bits should not be: Pillow and all who build on it can't read it."""

EXIF_FORMATS = frozenset({"jpeg", "png", "tiff", "webp", "avif", "heic"})
IPTC_FORMATS = frozenset({"jpeg", "png", "tiff"})
LONGEST_EXIF = {"jpeg": 65_500}
LONGEST_XMP = {"jpeg": 65_400}
LONGEST_IPTC = {"jpeg": 65_400, "png": 500_000}  # beyond that Pillow reads no text of a PNG

_WORST_JPEG_BYTES_PER_PIXEL = 6  # measured: 3.3, black and white noise at quality 100
_TRANSPARENT = 255  # of a GIF's palette


def save(picture: Picture, format: str, quality: int) -> bytes:
    """Return the bytes of a file.

    Args:
        picture: In a mode of `MODES`, deep only where `DEEP_FORMATS` has the format.
        format: One of `EXTENSIONS`.
        quality: 1..100, for jpeg, webp, avif and heic.

    Raises:
        ConfigError: it is larger than the format can hold.
    """
    require_room(format, *picture.size)
    return _SAVERS[format](picture, quality)


def require_room(format: str, width: int, height: int) -> None:
    """Do nothing if a picture of `width` x `height` pixels fits into a file of this format.

    Raises:
        ConfigError: it does not.
    """
    longest = _LONGEST_EDGE_PX.get(format)
    if longest is not None and max(width, height) > longest:
        raise ConfigError(
            f"{width} x {height} pixels do not fit into a {format} file, whose edges hold at "
            f"most {longest} pixels",
            "Set `output.format` to png or tiff.",
            "Ask for a smaller size.",
        )


def _save_jpeg(picture: Picture, quality: int) -> bytes:
    file = BytesIO()
    image = picture.image()
    with _room_for_jpeg(picture):
        image.save(
            file,
            "JPEG",
            quality=quality,
            subsampling="4:4:4",
            optimize=True,
            progressive=True,
            extra=as_photoshop_segment(picture.iptc) if picture.iptc else b"",
            **picture.described(),
        )
    return file.getvalue()


def _save_webp(picture: Picture, quality: int) -> bytes:
    # `exact`: the colours below full transparency are somebody's, too.
    return _saved(picture, "WEBP", quality=quality, exact=True)


def _save_avif(picture: Picture, quality: int) -> bytes:
    return _saved(picture, "AVIF", quality=quality, subsampling="4:4:4")


def _saved(picture: Picture, format: str, **options: object) -> bytes:
    file = BytesIO()
    described = picture.described()
    described.pop("dpi", None)  # they have no place for it but EXIF
    picture.image().save(file, format, **options, **described)
    return file.getvalue()


def _save_bmp(picture: Picture, quality: int) -> bytes:
    file = BytesIO()
    picture.image().save(file, "BMP")
    return file.getvalue()


def _save_gif(picture: Picture, quality: int) -> bytes:
    file = BytesIO()
    rgb = Image.fromarray(np.ascontiguousarray(picture.levels[..., :3]))
    # Pillow dithers only towards a palette that is given.
    indexed = rgb.quantize(palette=rgb.quantize(_TRANSPARENT))
    options = {}
    if picture.mode == "RGBA":
        opaque = picture.levels[..., 3] >= 128
        indexed.paste(_TRANSPARENT, mask=Image.fromarray(~opaque))
        options["transparency"] = _TRANSPARENT
    indexed.save(file, "GIF", **options)
    return file.getvalue()


_SAVERS: dict[str, Callable[[Picture, int], bytes]] = {
    "jpeg": _save_jpeg,
    "png": lambda picture, _: save_png(picture),
    "tiff": lambda picture, _: save_tiff(picture),
    "webp": _save_webp,
    "bmp": _save_bmp,
    "gif": _save_gif,
    "avif": _save_avif,
    "heic": save_heic,
}


_BUFFER_LOCK = threading.Lock()


@contextmanager
def _room_for_jpeg(picture: Picture) -> Iterator[None]:
    """Give Pillow's JPEG encoder a buffer that holds the whole file.

    An optimised or progressive JPEG is written in one go, and Pillow reserves two bytes for
    each pixel: too few for a noisy picture in 4:4:4, which then fails. MAXBLOCK is the least
    that Pillow reserves; whoever else meets the larger value only reserves more.
    """
    with _BUFFER_LOCK:
        before = ImageFile.MAXBLOCK
        width, height = picture.size
        beside = len(picture.icc or b"") + len(picture.xmp) + len(picture.iptc) + (1 << 17)
        ImageFile.MAXBLOCK = max(before, width * height * _WORST_JPEG_BYTES_PER_PIXEL + beside)
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = before
