"""How many photos are prepared while others are painted, how large they may be, and whether they
are still what was prepared when their turn comes."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

SHARE_OF_FREE = 0.1
"""How much of the free memory one photo may take while others are painted."""

READING_BYTES_PER_PIXEL = 20
"""What a photo takes while it is read; one with 16 bits and opacity up to four times that."""

PUBLISHING_BYTES_PER_PIXEL = 40
"""What a result takes while it is published, with the photo that it was made of."""


def may_claim(*, engines: int, free: int, waiting: int) -> bool:
    """Tell whether another job may be claimed: just early enough that no engine has to wait.

    Args:
        engines: How many there are.
        free: Those with nothing to do.
        waiting: Jobs that are being prepared, or are prepared and not yet painted.
    """
    return engines > 0 and waiting < engines + (1 if free else 0)


def pixels_beside(bytes_per_pixel: int) -> int:
    """Return how many pixels may be worked on while others are painted, which need memory too."""
    import torch

    from styled.engine.memory import free_bytes

    free = free_bytes(torch.device("cpu"))
    return sys.maxsize if free is None else int(free * SHARE_OF_FREE / bytes_per_pixel)


Stamps = tuple[tuple[Path, tuple[int, int, int, int] | None], ...]
"""Files, each with its size, mtime_ns, ctime_ns and number; None: it is no regular file."""


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """Return what changes with the content of files.

    Whoever writes to a file may keep its size and put its date back, but no one sets its ctime.
    """
    return tuple((path, _stamp(path)) for path in paths)


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def have_changed(stamps: Stamps) -> bool:
    """Tell whether any of the files is not what it was."""
    return any(_stamp(path) != stamp for path, stamp in stamps)
