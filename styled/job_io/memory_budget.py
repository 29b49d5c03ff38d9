"""How much memory one photo may use while others are painted."""

from __future__ import annotations

import sys

CONCURRENT_SHARE_OF_FREE = 0.1
"""Share of the free memory that decoding or encoding one photo may use beside painting.

It leaves room for photos with 16 bits and opacity, which need up to four times the usual memory.
"""

READING_BYTES_PER_PIXEL = 20
"""Peak memory for decoding a photo with 8 bits."""

PUBLISHING_BYTES_PER_PIXEL = 40
"""Peak memory for encoding a result, including the photo that it was painted from."""


def bytes_beside_painting() -> int:
    """Return how much memory decoding or encoding one photo may use beside painting.

    `sys.maxsize` if the free memory is not known.
    """
    import torch  # here, because the command line imports this module's neighbours without it

    from styled.engine.memory import free_bytes

    available = free_bytes(torch.device("cpu"))
    return sys.maxsize if available is None else int(available * CONCURRENT_SHARE_OF_FREE)
