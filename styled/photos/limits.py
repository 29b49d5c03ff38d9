"""What may be decoded at all: sizes in pixels, and the memory that decoding takes."""

from __future__ import annotations

from styled.errors import InputRejected, TooManyPixels
from styled.photos.shortage import require_memory

MIN_EDGE_PX = 32
DEFAULT_MAX_PIXELS = 200_000_000
DECODING_BYTES_PER_PIXEL = 20
"""Memory that decoding takes: libraries hold the image, or its coefficients, more than once."""


class Limits:
    """Checks the size of a picture before it is decoded."""

    def __init__(self, max_pixels: int, name: str) -> None:
        """Accept pictures of at most `max_pixels`; `name` is that of the file in messages."""
        self.max_pixels = max_pixels
        self.name = name
        self.needed_bytes = 0

    def check(self, size: tuple[int, int]) -> None:
        """Check a width and height in pixels, and note the memory that decoding will need.

        Raises:
            TooManyPixels: There are more pixels than are accepted.
            InputRejected: An edge is too short.
        """
        width, height = size
        if width * height > self.max_pixels:
            raise self.too_large(f"{width} x {height} pixels")
        if min(width, height) < MIN_EDGE_PX:
            raise InputRejected(
                f"{self.name} is too small: {width} x {height} pixels",
                f"Each edge needs at least {MIN_EDGE_PX} pixels.",
            )
        self.expect(width * height)

    def expect(self, pixels: int) -> None:
        """Note that so many pixels are going to be decoded."""
        self.needed_bytes = pixels * DECODING_BYTES_PER_PIXEL

    def require_memory(self) -> None:
        """Check that the memory is there, for libraries that end the process if it is not.

        Raises:
            MemoryShortage: It is not.
        """
        require_memory(f"decode {self.name}", self.needed_bytes)

    def too_large(self, size: str) -> TooManyPixels:
        """Return the error for a picture of too many pixels."""
        return TooManyPixels(
            f"{self.name} is too large: {size}; the limit is {self.max_pixels} pixels",
            "Save it smaller, or raise `intake.max_pixels` in the configuration.",
        )
