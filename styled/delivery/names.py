"""Chooses file and folder names that are free and not too long for the file system."""

from __future__ import annotations

import os
import threading
from collections.abc import Container, Iterator
from pathlib import Path

from styled.files import COMPANION_SUFFIXES, caseless

MAX_NAME_BYTES = 255
"""The limit of ext4, XFS and Btrfs. NTFS and APFS use other units but allow no less."""

_LONGEST_SUFFIX = max(COMPANION_SUFFIXES, key=len)

MAX_EXTENSION_BYTES = 32
"""What follows the last dot of a name is its extension only up to this length."""


def candidates(name: str, suffix: str = "") -> Iterator[str]:
    """Yield `photo.jpg`, `photo-2.jpg`, `photo-3.jpg`, ... without end.

    Args:
        name: The preferred name.
        suffix: For instance `.json`; every name is short enough to append it.
    """
    stem, extension = os.path.splitext(name)
    if len(os.fsencode(extension)) > MAX_EXTENSION_BYTES:
        stem, extension = name, ""  # the extension is never cut, so it must be short
    number = 1
    while True:
        tail = extension if number == 1 else f"-{number}{extension}"
        yield shortened(stem, MAX_NAME_BYTES - len(os.fsencode(tail + suffix))) + tail
        number += 1


def shortened(stem: str, longest_bytes: int) -> str:
    """Return a name cut between characters to at most `longest_bytes`."""
    while len(os.fsencode(stem)) > longest_bytes:
        stem = stem[:-1]
    return stem


def unused_path(
    folder: Path,
    name: str,
    *,
    sidecar: bool,
    companions: bool = False,
    reserved: Container[Path] = (),
) -> Path:
    """Return a path in `folder` that does not exist; with `sidecar`, neither does its sidecar.

    With `sidecar`, a name that is that of the sidecar of an existing file counts as taken, since
    that sidecar may be about to be written.

    Args:
        folder: May be missing.
        name: The preferred name.
        sidecar: Whether there will be a sidecar beside it.
        companions: Whether settings or a mask will be beside it: their names are longer.
        reserved: Paths that are about to be written and count as taken.
    """
    suffix = _LONGEST_SUFFIX if companions else ".json" if sidecar else ""
    for candidate in candidates(name, suffix):
        path = folder / candidate
        paths = _with_sidecar(path, sidecar=sidecar)
        if any(one in reserved or os.path.lexists(one) for one in paths):
            continue
        # A leftover companion of another photo (`photo.jpg.yaml`) would be applied to this one.
        if any(os.path.lexists(folder / f"{candidate}{suffix}") for suffix in COMPANION_SUFFIXES):
            continue
        if sidecar and candidate.endswith(".json") and os.path.lexists(path.with_suffix("")):
            continue
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


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of a result or a rejected input."""
    return path.with_name(f"{path.name}.json")


class ReservedNames(Container[Path]):
    """Names that are chosen but not yet written: several threads publish at the same time.

    Names that differ only by case or Unicode normalisation are one name on some file systems.
    """

    def __init__(self) -> None:
        """Start without any reservation."""
        self._owners: dict[str, str] = {}  # caseless path -> job id
        self._lock = threading.RLock()

    def __contains__(self, path: object) -> bool:
        """Return whether a path is reserved, by whatever job."""
        return caseless(str(path)) in self._owners

    def choose(
        self, folder: Path, name: str, *, job_id: str, sidecar: bool, companions: bool = False
    ) -> Path:
        """Return an unused path as `unused_path` does, and reserve it and its sidecar's path."""
        with self._lock:
            path = unused_path(folder, name, sidecar=sidecar, companions=companions, reserved=self)
            self.hold(path, job_id=job_id, sidecar=sidecar)
        return path

    def hold(self, path: Path, *, job_id: str, sidecar: bool) -> bool:
        """Reserve a path that was chosen by an earlier attempt; return False if another job has."""
        names = [caseless(str(one)) for one in _with_sidecar(path, sidecar=sidecar)]
        with self._lock:
            if any(self._owners.get(name, job_id) != job_id for name in names):
                return False
            self._owners.update(dict.fromkeys(names, job_id))
        return True

    def written(self, *paths: Path) -> None:
        """Release paths that exist by now, but not those of their sidecars."""
        with self._lock:
            for path in paths:
                self._owners.pop(caseless(str(path)), None)

    def discard(self, path: Path) -> None:
        """Release a path and that of its sidecar."""
        self.written(path, sidecar_path(path))


def _with_sidecar(path: Path, *, sidecar: bool) -> tuple[Path, ...]:
    return (path, sidecar_path(path)) if sidecar else (path,)
