"""An image that is to be encoded: pixels and metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from styled.photos.exif import Exif, to_bytes

Levels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class OutputImage:
    """Pixels and metadata of an image file.

    Attributes:
        levels: HxWxC, 8 or 16 bit.
        mode: L, LA, RGB, RGBA or CMYK, as in Pillow.
        icc: The colour profile of the levels.
        exif: EXIF data; None: none.
        xmp: The XMP packet.
        xmp_extension: Its second part, for JPEG.
        iptc: IPTC-IIM records.
        photoshop: Photoshop's resources about rights and links, for JPEG and TIFF.
        dpi: Dots per inch, horizontally and vertically.
        comment: A comment, for JPEG.
        texts: Keys and texts, for PNG.
    """

    levels: Levels
    mode: str
    icc: bytes | None = None
    exif: Exif | None = None
    xmp: bytes = b""
    xmp_extension: bytes = b""
    iptc: bytes = b""
    photoshop: bytes = b""
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.levels.shape[1], self.levels.shape[0]

    @property
    def is_sixteen_bit(self) -> bool:
        """Whether the levels have 16 bits."""
        return self.levels.dtype == np.uint16

    def image(self) -> Image.Image:
        """Return 8-bit levels as a Pillow image."""
        levels = self.levels[..., 0] if self.mode == "L" else self.levels
        return Image.fromarray(np.ascontiguousarray(levels), self.mode)

    def save_options(self) -> dict[str, Any]:
        """Return the metadata that is not empty, as keyword arguments for Pillow's `Image.save`."""
        options = {
            "icc_profile": self.icc,
            "exif": b"Exif\0\0" + to_bytes(self.exif) if self.exif is not None else None,
            "xmp": self.xmp,
            "dpi": self.dpi,
        }
        return {name: value for name, value in options.items() if value}
