"""Real disks for tests: small ones, that can be filled, taken away and made read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.watchman import HIDDEN

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount an empty disk of this size, such as `1m`, on `folder` while the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, *options: str) -> None:
    """Change the options of a mounted disk, such as `ro` or `size=8m`."""
    subprocess.run(["mount", "-o", f"remount,{','.join(options)}", str(folder)], check=True)


def fill(folder: Path, leaving_bytes: int = 0) -> Path:
    """Fill a disk with one large file, and return that."""
    ballast = folder / f"{HIDDEN}ballast"
    with open(ballast, "wb", buffering=0) as file:
        room = os.statvfs(folder)
        left = room.f_bavail * room.f_frsize - leaving_bytes
        while left > 0:
            try:
                left -= file.write(bytes(min(left, 65536)))
            except OSError:
                break
    return ballast
