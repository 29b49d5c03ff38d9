"""Encodes pixels as an image file, by format. The same pixels always give the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile

from styled.errors import ConfigError
from styled.photos.exif import without_orientation
from styled.photos.heic import save_heic
from styled.photos.iptc import photoshop_resource
from styled.photos.jpeg import comment_segment, photoshop_segment, xmp_segments
from styled.photos.jxl import save_jxl
from styled.photos.output_image import OutputImage
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
    "jxl": ".jxl",
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
    "jxl": {"L", "RGB", "RGBA"},
}
"""The Pillow modes that the pixels of a file may have."""

SIXTEEN_BIT_FORMATS = frozenset({"png", "tiff"})
UNREADABLE_SIXTEEN_BIT_MODES = {"tiff": frozenset({"LA"})}
"""Modes that a 16-bit file must not have: Pillow and programs that use it can't read them."""

EXIF_FORMATS = frozenset({"jpeg", "png", "tiff", "webp", "avif", "heic", "jxl"})
IPTC_FORMATS = frozenset({"jpeg", "png", "tiff"})
MAX_EXIF_BYTES = {"jpeg": 65_500}
MAX_PHOTOSHOP_BYTES = 5000
MAX_IPTC_BYTES = {"jpeg": 60_000, "png": 500_000}  # Pillow does not read longer texts of a PNG
MAX_COMMENT_BYTES = 65_400
MAX_XMP_SEGMENT_BYTES = 65_400

_WORST_JPEG_BYTES_PER_PIXEL = 6  # 3.3 measured: black and white noise at quality 100
_TRANSPARENT_INDEX = 255  # in a GIF's palette


def save(picture: OutputImage, format: str, quality: int) -> bytes:
    """Return the bytes of a file.

    Args:
        picture: Its mode is one of `MODES`; 16 bits only for `SIXTEEN_BIT_FORMATS`.
        format: One of `EXTENSIONS`.
        quality: 1..100, for jpeg, webp, avif and heic.

    Raises:
        ConfigError: The image is larger than the format can hold.
    """
    require_encodable(format, *picture.size)
    return _SAVERS[format](picture, quality)


def require_encodable(format: str, width: int, height: int) -> None:
    """Check that an image of `width` x `height` pixels fits into a file of this format.

    Raises:
        ConfigError: It does not fit.
    """
    max_edge = _LONGEST_EDGE_PX.get(format)
    if max_edge is not None and max(width, height) > max_edge:
        raise ConfigError(
            f"{width} x {height} pixels do not fit into a {format} file, whose edges hold at "
            f"most {max_edge} pixels",
            "Set `output.format` to png or tiff.",
            "Ask for a smaller size.",
        )


def _save_jpeg(picture: OutputImage, quality: int) -> bytes:
    file = BytesIO()
    image = picture.image()
    options = picture.save_options()
    options.pop("xmp", None)
    with _jpeg_buffer(picture):
        image.save(
            file,
            "JPEG",
            quality=quality,
            subsampling="4:4:4",
            optimize=True,
            progressive=True,
            extra=_jpeg_segments(picture),
            **options,
        )
    return file.getvalue()


def _jpeg_segments(picture: OutputImage) -> bytes:
    """Return the segments of XMP, IPTC and comment; Pillow writes those of EXIF and the profile."""
    segments = xmp_segments(picture.xmp, picture.xmp_extension)
    if picture.iptc or picture.photoshop:
        resources = photoshop_resource(picture.iptc) if picture.iptc else b""
        segments += photoshop_segment(resources + picture.photoshop)
    if picture.comment:
        segments += comment_segment(picture.comment)
    return segments


def _save_webp(picture: OutputImage, quality: int) -> bytes:
    # `exact` keeps the colours of fully transparent pixels.
    return _save_with_pillow(picture, "WEBP", quality=quality, exact=True)


def _save_avif(picture: OutputImage, quality: int) -> bytes:
    if picture.exif is not None:
        # Given an orientation, Pillow would write the EXIF data anew, in its own way.
        picture = replace(picture, exif=without_orientation(picture.exif))
    return _save_with_pillow(picture, "AVIF", quality=quality, subsampling="4:4:4")


def _save_with_pillow(picture: OutputImage, format: str, **options: object) -> bytes:
    file = BytesIO()
    metadata_options = picture.save_options()
    metadata_options.pop("dpi", None)  # these formats store it in EXIF only
    picture.image().save(file, format, **options, **metadata_options)
    return file.getvalue()


def _save_bmp(picture: OutputImage, quality: int) -> bytes:
    file = BytesIO()
    picture.image().save(file, "BMP")
    return file.getvalue()


def _save_gif(picture: OutputImage, quality: int) -> bytes:
    file = BytesIO()
    rgb = Image.fromarray(np.ascontiguousarray(picture.levels[..., :3]))
    # Pillow dithers only if it is given a palette.
    indexed = rgb.quantize(palette=rgb.quantize(_TRANSPARENT_INDEX))
    options = {}
    if picture.mode == "RGBA":
        opaque = picture.levels[..., 3] >= 128
        indexed.paste(_TRANSPARENT_INDEX, mask=Image.fromarray(~opaque))
        options["transparency"] = _TRANSPARENT_INDEX
    indexed.save(file, "GIF", **options)
    return file.getvalue()


_SAVERS: dict[str, Callable[[OutputImage, int], bytes]] = {
    "jpeg": _save_jpeg,
    "png": lambda picture, _: save_png(picture),
    "tiff": lambda picture, _: save_tiff(picture),
    "webp": _save_webp,
    "bmp": _save_bmp,
    "gif": _save_gif,
    "avif": _save_avif,
    "heic": save_heic,
    "jxl": save_jxl,
}


_BUFFER_LOCK = threading.Lock()


@contextmanager
def _jpeg_buffer(picture: OutputImage) -> Iterator[None]:
    """Give Pillow's JPEG encoder a buffer that holds the whole file.

    An optimised or progressive JPEG is written in one go, and Pillow reserves two bytes for
    each pixel: too few for a noisy image in 4:4:4, whose encoding then fails. MAXBLOCK is the
    minimum that Pillow reserves. It is global: other code that runs meanwhile only reserves
    more.
    """
    with _BUFFER_LOCK:
        previous = ImageFile.MAXBLOCK
        width, height = picture.size
        metadata_bytes = len(picture.icc or b"") + len(_jpeg_segments(picture)) + (1 << 17)
        ImageFile.MAXBLOCK = max(
            previous, width * height * _WORST_JPEG_BYTES_PER_PIXEL + metadata_bytes
        )
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = previous
