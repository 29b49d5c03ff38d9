"""Small images for the tests of photos, and functions that make files with other programs."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, features

from styled.errors import InputIncomplete, InputRejected
from styled.photos import Photo, decode_photo
from styled.photos.output_image import OutputImage
from styled.photos.png import save_png

REFUSALS = (InputRejected, InputIncomplete)


def _needs(program: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed ({package})"
    )


def _is_imagemagick(program: str) -> bool:
    """Return whether a program, which may have a common name, is ImageMagick's."""
    if shutil.which(program) is None:
        return False
    done = subprocess.run([program, "-version"], check=False, capture_output=True, timeout=60)
    return b"ImageMagick" in done.stdout


needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow lacks AVIF")
needs_convert = pytest.mark.skipif(
    not _is_imagemagick("convert"), reason="convert is not installed (ImageMagick)"
)
needs_exiftool = _needs("exiftool", "libimage-exiftool-perl")
needs_cjpeg = _needs("cjpeg", "libjpeg-turbo-progs")


def run(*command: str | Path) -> str:
    """Run a program, which must succeed, and return its standard output."""
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return done.stdout.decode()


def converted(source: Path, target: Path, *options: str) -> bytes:
    """Convert a file with ImageMagick, and return the bytes of the result."""
    run("convert", source, *options, target)
    return target.read_bytes()


# Options of Pillow that save without visible loss.
EXACT: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 100, "subsampling": 0},
}


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


ASTRONAUT: np.ndarray = skimage.data.astronaut()  # type: ignore[no-untyped-call]


def astronaut(width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(ASTRONAUT[:height, 150 : 150 + width])


def pixels(photo: Photo) -> np.ndarray:
    return np.asarray(photo.image).astype(int)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def decoded(image: Image.Image, format: str, **options: Any) -> Photo:
    """Return an image as a photo, after Pillow has written it to a file."""
    return decode_photo(saved(image, format, **options))


def content() -> torch.Tensor:
    return decoded(astronaut(), "PNG").tensor(96, 64)


def own_tensor(photo: Photo) -> torch.Tensor:
    """Return the photo's own pixels, in place of a painting: 1x3xHxW."""
    return photo.tensor(photo.width, photo.height)[:, :3]


def deep_png(levels: np.ndarray, icc: bytes | None = None) -> bytes:
    """Return a PNG of HxWxC 16-bit levels."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[levels.shape[2]]
    return save_png(OutputImage(levels, mode, icc))


CUTTABLE: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"},
    "progressive": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG"},
    "tiff": {"format": "TIFF"},
    "tiff-lzw": {"format": "TIFF", "compression": "tiff_lzw"},
    "tiff-deflate": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    "bigtiff": {"format": "TIFF", "big_tiff": True},
    "webp": {"format": "WEBP"},
    "webp-lossless": {"format": "WEBP", "lossless": True},
    "bmp": {"format": "BMP"},
    "gif": {"format": "GIF"},
}


def by_cjpeg(folder: Path, *options: str) -> bytes:
    """Return the astronaut as a JPEG by the reference encoder, cjpeg."""
    astronaut().save(folder / "source.ppm")
    run("cjpeg", *options, "-outfile", folder / "input.jpg", folder / "source.ppm")
    return (folder / "input.jpg").read_bytes()
