"""Limits for preparing photos while others are painted: how many and how large.

Also detects whether the files of a prepared photo have changed before it is painted.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

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


Stamps = tuple[tuple[Path, tuple[int, int, int, int] | None], ...]
"""Files, each with its size, mtime_ns, ctime_ns and inode; None: it is not a regular file."""


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """Return values from which `have_changed` detects a change of the files' content.

    A program that writes to a file may keep its size and restore its modification time, but it
    can't set the ctime.
    """
    return tuple((path, _stamp(path)) for path in paths)


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    try:
        info = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino


def have_changed(stamps: Stamps) -> bool:
    """Return whether any of the files has changed since `stamps_of`."""
    return any(_stamp(path) != stamp for path, stamp in stamps)
