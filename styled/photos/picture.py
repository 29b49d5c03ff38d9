"""A picture on its way into a file: its levels, and what is written beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Picture:
    """What goes into a file.

    Attributes:
        levels: HxWxC, 8 or 16 bit.
        mode: L, LA, RGB, RGBA or CMYK, as Pillow names them.
        icc: The colour profile that they are in.
        exif: With orientation 1, or without any.
        xmp, iptc: See `Metadata`.
        dpi: Likewise.
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
    def is_deep(self) -> bool:
        """Whether it has 16 bits."""
        return self.levels.dtype == np.uint16

    def image(self) -> Image.Image:
        """Return 8-bit levels as Pillow has them."""
        levels = self.levels[..., 0] if self.mode == "L" else self.levels
        return Image.fromarray(np.ascontiguousarray(levels), self.mode)

    def described(self) -> dict[str, Any]:
        """Return what Pillow takes beside the pixels, as far as there is any."""
        facts = {
            "icc_profile": self.icc,
            "exif": self.exif.tobytes() if self.exif is not None else None,
            "xmp": self.xmp,
            "dpi": self.dpi,
        }
        return {name: fact for name, fact in facts.items() if fact}
