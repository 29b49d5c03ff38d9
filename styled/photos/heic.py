"""HEIC, the photo format of phones: read and written by pillow-heif, if that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from styled.degradation import Degradation
from styled.errors import ConfigError, InputRejected
from styled.extras import install_command
from styled.photos.output_image import OutputImage
from styled.photos.raster import Raster, unpremultiplied, widen

try:
    import pillow_heif
except ImportError:
    pillow_heif = None  # type: ignore[assignment]  # checked below

_NOT_INSTALLED = "the package pillow-heif is not installed"


class HeicFile:
    """An open HEIC file, not decoded yet.

    Attributes:
        size: Width and height in pixels, upright.
        info: Metadata, with the names that Pillow uses.
        degraded: Frames that are not used.
    """

    def __init__(self, file: Any) -> None:
        """Describe a file that pillow-heif has opened."""
        self._file = file
        self.size: tuple[int, int] = file.size
        self.info: Mapping[str | tuple[int, int], object] = file.info
        frames = len(file)
        message = f"only the first of {frames} frames was used"
        self.degraded = (Degradation("frames", message),) if frames > 1 else ()

    def load(self) -> Image.Image | Raster:
        """Decode it: to an image, or to levels of more than 8 bits."""
        mode = self._file.mode
        if not mode.endswith(";16") and not mode.startswith("I;16"):
            image: Image.Image = self._file.to_pillow()
            return image
        bits = int(self._file.info.get("bit_depth", 16))
        levels = widen(np.asarray(self._file), bits)
        if levels.ndim == 2:
            return Raster(levels[..., None], "gray")
        colors = np.ascontiguousarray(levels[..., :3])
        if levels.shape[2] < 4:
            return Raster(colors, "rgb")
        alpha = levels[..., 3]
        if mode.startswith("RGBa"):
            colors = unpremultiplied(colors, alpha)
        return Raster(colors, "rgb", alpha)


def open_heic(data: bytes) -> HeicFile:
    """Open a HEIC file.

    Raises:
        InputRejected: pillow-heif is not installed.
    """
    if pillow_heif is None:
        raise InputRejected(
            f"HEIC pictures can't be read here: {_NOT_INSTALLED}",
            f"{install_command('pillow-heif')}, restart styled, and drop the photo once more.",
            "Or save the photo as a JPEG.",
        )
    return HeicFile(pillow_heif.open_heif(BytesIO(data), convert_hdr_to_8bit=False))


def save_heic(picture: OutputImage, quality: int) -> bytes:
    """Return the bytes of a HEIC file.

    Raises:
        ConfigError: pillow-heif is not installed.
    """
    if pillow_heif is None:
        raise ConfigError(
            f"HEIC pictures can't be written here: {_NOT_INSTALLED}", install_command("pillow-heif")
        )
    file = BytesIO()
    heif = pillow_heif.from_pillow(picture.image())
    options = {key: value for key, value in picture.save_options().items() if key != "dpi"}
    icc = options.pop("icc_profile", None)
    if icc is not None:
        heif[0].info["icc_profile"] = icc
    heif.save(file, quality=quality, chroma=444, **options)
    return file.getvalue()
