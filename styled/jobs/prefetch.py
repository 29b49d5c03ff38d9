"""Limits for work beside painting: how many jobs are prepared ahead, and how large they may be."""

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


def claimable(*, engines: int, free_engines: int, prefetched: int) -> int:
    """Return how many jobs may be claimed: just early enough that no engine has to wait.

    One prefetched job for each engine suffices: each finds one when it becomes free. While an
    engine is free, one of them is about to be painted, so that one more may be claimed.

    Args:
        engines: Number of engines, whether free or busy.
        free_engines: Number of free engines.
        prefetched: Number of claimed jobs that are not painted yet: in preparation or ready.
    """
    if not engines:
        return 0
    return max(0, engines + (1 if free_engines else 0) - prefetched)


def bytes_beside_painting() -> int:
    """Return how much memory decoding or encoding one photo may use beside painting.

    `sys.maxsize` if the free memory is not known.
    """
    import torch  # here, because the command line imports this module's neighbours without it

    from styled.engine.memory import free_bytes

    available = free_bytes(torch.device("cpu"))
    return sys.maxsize if available is None else int(available * CONCURRENT_SHARE_OF_FREE)
