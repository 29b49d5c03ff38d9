"""Chooses file and folder names that are free and not too long for the file system."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from pathlib import Path

LONGEST_NAME_BYTES = 255
"""The limit of ext4, XFS and Btrfs. NTFS and APFS use other units but allow no less."""

LONGEST_EXTENSION_BYTES = 32
"""What follows the last dot of a name is its extension only up to this length."""


def candidates(name: str, suffix: str = "") -> Iterator[str]:
    """Yield `photo.jpg`, `photo-2.jpg`, `photo-3.jpg`, ... without end.

    Args:
        name: The preferred name.
        suffix: For instance `.json`; every name is short enough to append it.
    """
    stem, extension = os.path.splitext(name)
    if len(os.fsencode(extension)) > LONGEST_EXTENSION_BYTES:
        stem, extension = name, ""  # the extension is never cut, so it must be short
    number = 1
    while True:
        tail = extension if number == 1 else f"-{number}{extension}"
        yield shortened(stem, LONGEST_NAME_BYTES - len(os.fsencode(tail + suffix))) + tail
        number += 1


def shortened(stem: str, longest_bytes: int) -> str:
    """Return a name cut between characters to at most `longest_bytes`."""
    while len(os.fsencode(stem)) > longest_bytes:
        stem = stem[:-1]
    return stem


def unused_path(folder: Path, name: str, *, sidecar: bool, reserved: Container[Path] = ()) -> Path:
    """Return a path in `folder` that does not exist; with `sidecar`, neither does its sidecar.

    Args:
        folder: May be missing.
        name: The preferred name.
        sidecar: Whether there will be a sidecar beside it.
        reserved: Paths that are about to be written and count as taken.
    """
    suffix = ".json" if sidecar else ""
    for candidate in candidates(name, suffix):
        path = folder / candidate
        if path in reserved:
            continue
        if not os.path.lexists(path) and not (sidecar and os.path.lexists(sidecar_of(path))):
            return path
    raise AssertionError("candidates() never ends")


def free_folder(parent: Path, name: str) -> Path:
    """Return a path in `parent` that is a folder or does not exist."""
    for candidate in candidates(name):
        path = parent / candidate
        # `lexists` first: another thread may make the folder between the two calls.
        if not os.path.lexists(path) or os.path.isdir(path):
            return path
    raise AssertionError("candidates() never ends")


def sidecar_of(path: Path) -> Path:
    """Return the path of the sidecar of a result or a rejected input."""
    return path.with_name(f"{path.name}.json")
