"""Small real file systems for tests, which can be filled, unmounted and made read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.output_checker import HIDDEN

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount an empty tmpfs of this size, such as `1m`, on `folder` while the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    completed = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    if completed.returncode:
        pytest.skip(f"nothing can be mounted here: {completed.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, *options: str) -> None:
    """Change the options of a mounted file system, such as `ro` or `size=8m`."""
    subprocess.run(["mount", "-o", f"remount,{','.join(options)}", str(folder)], check=True)


def fill(folder: Path, leaving_bytes: int = 0) -> Path:
    """Fill a file system with one large file, except for `leaving_bytes`; return the file."""
    ballast = folder / f"{HIDDEN}ballast"
    with open(ballast, "wb", buffering=0) as file:
        stat = os.statvfs(folder)
        remaining = stat.f_bavail * stat.f_frsize - leaving_bytes
        while remaining > 0:
            try:
                remaining -= file.write(bytes(min(remaining, 65536)))
            except OSError:
                break
    return ballast
