"""Limits for preparing photos while others are painted: how many and how large."""

from __future__ import annotations

import sys

SHARE_OF_FREE = 0.1
"""Share of the free memory that one photo may use while other photos are painted."""

READING_BYTES_PER_PIXEL = 20
"""Memory for reading a photo; one with 16 bits and opacity needs up to four times that."""

PUBLISHING_BYTES_PER_PIXEL = 40
"""Memory for publishing a result, including the photo that it was made of."""


def may_claim(*, engines: int, free: int, waiting: int) -> bool:
    """Return whether another job may be claimed: just early enough that no engine has to wait.

    Args:
        engines: Number of engines.
        free: Number of free engines.
        waiting: Number of jobs that are being prepared or are ready to be painted.
    """
    return engines > 0 and waiting < engines + (1 if free else 0)


def max_concurrent_pixels(bytes_per_pixel: int) -> int:
    """Return how many pixels a photo may have while others are painted, which need memory too."""
    import torch

    from styled.engine.memory import free_bytes

    free = free_bytes(torch.device("cpu"))
    return sys.maxsize if free is None else int(free * SHARE_OF_FREE / bytes_per_pixel)
