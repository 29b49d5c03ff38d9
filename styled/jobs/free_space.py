"""Requires free disk space before a job begins, so that disks never become full."""

from __future__ import annotations

import os
import shutil

from styled.config import Config
from styled.errors import DiskNearlyFull
from styled.files import readable


def require_free_space(config: Config) -> None:
    """Check that each disk that a job writes to has `output.min_free` bytes left.

    Disks that can't be asked are left to the operations that use them.

    Raises:
        DiskNearlyFull: one has less.
    """
    names = ["outbox", "state"]
    if config.output.after_success == "archive":
        names.append("archive")
    for name in names:
        folder = getattr(config, name)
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            continue
        if free < config.output.min_free:
            raise DiskNearlyFull(
                f"the disk of the {name} ({readable(os.fspath(folder))}) has {_gigabytes(free)} "
                f"free, less than output.min_free ({_gigabytes(config.output.min_free)})",
                "free some space: originals in the archive are the first to think of; "
                "work goes on by itself",
                "or lower output.min_free",
            )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
