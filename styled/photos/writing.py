"""From a tensor to the bytes of a file. The same pixels always give the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import torch
from PIL import Image, ImageFile

from styled.errors import ConfigError
from styled.photos.colour import SRGB_PROFILE

EXTENSIONS = {
    "jpeg": ".jpg",
    "png": ".png",
    "tiff": ".tif",
    "webp": ".webp",
    "bmp": ".bmp",
    "gif": ".gif",
    "avif": ".avif",
}
_LONGEST_EDGE_PX = {"jpeg": 65_500, "webp": 16_383, "gif": 65_535, "avif": 65_535}
_WORST_JPEG_BYTES_PER_PIXEL = 6  # measured: 3.3, black and white noise at quality 100
_TIFF_PREDICTOR, _DIFFERENCES = 317, 2  # neighbours' differences compress better than pixels


def output_format(configured: str, input_format: str) -> tuple[str, str]:
    """Return the result's format and file name extension (with its dot).

    `configured` is a format, or `same` for that of the input. Raises ValueError for an
    unknown one.
    """
    chosen = input_format if configured == "same" else configured
    if chosen not in EXTENSIONS:
        raise ValueError(f"unknown picture format {chosen!r}: expected {', '.join(EXTENSIONS)}")
    return chosen, EXTENSIONS[chosen]


def to_image(tensor: torch.Tensor) -> Image.Image:
    """Convert a 1x3xHxW floating-point tensor, sRGB in [0,1], to an 8-bit RGB picture.

    Values are rounded; those outside [0,1] are clamped. Raises ValueError for another shape
    or type, and for values that are not finite: they have no colour.
    """
    shape = tuple(tensor.shape)
    if len(shape) != 4 or shape[:2] != (1, 3) or 0 in shape or not tensor.is_floating_point():
        raise ValueError(
            f"expected a 1x3xHxW floating-point tensor, got {'x'.join(map(str, shape))} "
            f"of {tensor.dtype}"
        )
    pixels = tensor.detach()[0].to("cpu", torch.float32)
    if not torch.isfinite(pixels).all():
        raise ValueError("the tensor holds values that are not finite")
    levels = pixels.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def encode(tensor: torch.Tensor, format: str, quality: int = 95) -> bytes:
    """Encode a 1x3xHxW tensor, sRGB in [0,1], as a file of `format`.

    `quality` (1..100) matters to jpeg, webp and avif. All but bmp and gif carry an sRGB
    profile. Raises ValueError for an unknown format or a wrong tensor, ConfigError if the
    picture is larger than the format can hold.
    """
    output_format(format, format)
    image = to_image(tensor)
    longest = _LONGEST_EDGE_PX.get(format)
    if longest is not None and max(image.size) > longest:
        raise ConfigError(
            f"{image.width} x {image.height} pixels do not fit into a {format} file, whose "
            f"edges hold at most {longest} pixels",
            "Set `output.format` to png or tiff.",
            "Ask for a smaller size.",
        )
    file = BytesIO()
    if format == "jpeg":
        with _room_for_jpeg(image):
            image.save(
                file,
                "JPEG",
                quality=quality,
                subsampling="4:4:4",
                optimize=True,
                progressive=True,
                icc_profile=SRGB_PROFILE,
            )
    elif format == "png":
        image.save(file, "PNG", icc_profile=SRGB_PROFILE)
    elif format == "tiff":
        image.save(
            file,
            "TIFF",
            compression="tiff_lzw",
            tiffinfo={_TIFF_PREDICTOR: _DIFFERENCES},
            icc_profile=SRGB_PROFILE,
        )
    elif format == "webp":
        image.save(file, "WEBP", quality=quality, icc_profile=SRGB_PROFILE)
    elif format == "avif":
        image.save(file, "AVIF", quality=quality, subsampling="4:4:4", icc_profile=SRGB_PROFILE)
    elif format == "gif":
        # Pillow dithers only towards a palette that is given.
        image.quantize(palette=image.quantize(256)).save(file, "GIF")
    else:
        image.save(file, "BMP")
    return file.getvalue()


_BUFFER_LOCK = threading.Lock()


@contextmanager
def _room_for_jpeg(image: Image.Image) -> Iterator[None]:
    """Give Pillow's JPEG encoder a buffer that holds the whole file.

    An optimised or progressive JPEG is written in one go, and Pillow reserves two bytes for
    each pixel: too few for a noisy picture in 4:4:4, which then fails. MAXBLOCK is the least
    that Pillow reserves; whoever else meets the larger value only reserves more.
    """
    with _BUFFER_LOCK:
        before = ImageFile.MAXBLOCK
        needed = image.width * image.height * _WORST_JPEG_BYTES_PER_PIXEL + len(SRGB_PROFILE)
        ImageFile.MAXBLOCK = max(before, needed)
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = before
