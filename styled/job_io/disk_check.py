"""Requires disks that can be written, and free space on them, before a job begins."""

from __future__ import annotations

import os

from styled.config import Config
from styled.errors import DiskNearlyFull, DiskReadOnly
from styled.files import readable


def require_usable_disks(config: Config) -> None:
    """Check that each disk that a job writes to is writable and has `output.min_free` bytes left.

    Otherwise hours of painting could be lost.

    Disks whose usage can't be read are skipped: the operations that use them report the error.

    Raises:
        DiskNearlyFull: one has less.
        DiskReadOnly: one is mounted read-only.
    """
    names = ["outbox", "state"]
    if config.output.after_success == "archive":
        names.append("archive")
    for name in names:
        folder = getattr(config, name)
        try:
            disk = os.statvfs(folder)
        except OSError:
            continue
        if disk.f_flag & os.ST_RDONLY:
            raise DiskReadOnly(
                f"{readable(os.fspath(folder))} can't be written: Read-only file system",
                "mount it writable",
                "under systemd, name it in ReadWritePaths= (systemctl edit styled)",
            )
        free = disk.f_bavail * disk.f_frsize
        if free < config.output.min_free:
            raise DiskNearlyFull(
                f"the disk of the {name} ({readable(os.fspath(folder))}) has {_gigabytes(free)} "
                f"free, less than output.min_free ({_gigabytes(config.output.min_free)})",
                "free some space, for instance by deleting originals from the archive",
                "or lower output.min_free",
            )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
