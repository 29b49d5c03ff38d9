"""What lies under a name: looked at without following, waiting or changing anything."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path, PurePosixPath

from styled.errors import ResourceUnavailable

TEMPORARY_PREFIX = ".styled-"
"""What the hidden names of our own unfinished files begin with, wherever they lie."""

LONGEST_PATH_BYTES = 4000
"""Linux takes 4095 with all folders; the rest is for a sidecar's or a temporary name."""


def identity(path: Path) -> tuple[int, int] | None:
    """Return size and mtime_ns of a regular file, None where there is none.

    A link or a pipe in its place could be made to look like it, but is never the file.

    Raises:
        ResourceUnavailable: nobody can tell, for instance because of a permission.
    """
    try:
        found = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ResourceUnavailable(
            f"{path} can't be looked at: {error.strerror}",
            "check the permissions, the disk and the mount",
        ) from error
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def readable(name: str | os.PathLike[str]) -> str:
    r"""Return a file name as text: bytes that are not UTF-8 are escaped as `\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def sha256_of(path: Path) -> str | None:
    """Return the digest of a regular file, None for anything else: a pipe would block."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def lies_in(root: Path, relative: str) -> bool:
    """Tell whether the way from `root` to `relative` leads through real folders only.

    A folder that has been replaced by a link since it was looked at could lead anywhere.
    """
    folder = root
    for part in PurePosixPath(relative).parts[:-1]:
        folder = folder / part
        if os.path.islink(folder):
            return False
    return True
