"""An image that is to be encoded: pixels and metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class OutputImage:
    """Pixels and metadata of an image file.

    Attributes:
        levels: HxWxC, 8 or 16 bit.
        mode: L, LA, RGB, RGBA or CMYK, as in Pillow.
        icc: The colour profile of the levels.
        exif: With orientation 1, or with none.
        xmp: The XMP packet.
        iptc: IPTC-IIM records.
        dpi: Dots per inch, horizontally and vertically.
    """

    levels: Levels
    mode: str
    icc: bytes | None = None
    exif: Image.Exif | None = None
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None

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
            "exif": self.exif.tobytes() if self.exif is not None else None,
            "xmp": self.xmp,
            "dpi": self.dpi,
        }
        return {name: value for name, value in options.items() if value}
