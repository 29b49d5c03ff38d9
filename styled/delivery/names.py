"""Names for what is delivered: free ones, and never too long."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from pathlib import Path

LONGEST_NAME_BYTES = 255
"""What ext4, XFS, Btrfs, NTFS and APFS allow, the last two in other units but no less."""

LONGEST_EXTENSION_BYTES = 32
"""What follows the last dot of a name counts as its extension up to here."""


def candidates(name: str, suffix: str = "") -> Iterator[str]:
    """Yield `photo.jpg`, `photo-2.jpg`, `photo-3.jpg`, ... without end.

    Args:
        name: What would be best.
        suffix: Something like `.json` that must still fit behind every name.
    """
    stem, extension = os.path.splitext(name)
    if len(os.fsencode(extension)) > LONGEST_EXTENSION_BYTES:
        stem, extension = name, ""  # or nothing could be cut to make room for a number
    number = 1
    while True:
        tail = extension if number == 1 else f"-{number}{extension}"
        yield shortened(stem, LONGEST_NAME_BYTES - len(os.fsencode(tail + suffix))) + tail
        number += 1


def shortened(stem: str, longest_bytes: int) -> str:
    """Cut a name to so many bytes, between characters."""
    while len(os.fsencode(stem)) > longest_bytes:
        stem = stem[:-1]
    return stem


def free_place(folder: Path, name: str, *, sidecar: bool, reserved: Container[Path] = ()) -> Path:
    """Return a path in `folder` that nothing has yet, nor its sidecar's.

    Args:
        folder: May be missing.
        name: What would be best.
        sidecar: Whether there will be a sidecar beside it.
        reserved: Paths that somebody is about to write.
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
    """Return a path in `parent` that is a folder or may become one."""
    for candidate in candidates(name):
        path = parent / candidate
        # In this order: another thread may make the folder between the two calls.
        if not os.path.lexists(path) or os.path.isdir(path):
            return path
    raise AssertionError("candidates() never ends")


def sidecar_of(path: Path) -> Path:
    """Return where the sidecar of a result or a rejected input is."""
    return path.with_name(f"{path.name}.json")
