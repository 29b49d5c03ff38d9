"""From a path to bytes: regular files only, without ever waiting."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from styled.errors import InputIncomplete, InputRejected, ResourceUnavailable

DEFAULT_LIMIT_BYTES = 2 * 1024**3


def read_bytes(path: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> bytes:
    """Read a whole regular file; never wait, never follow a symbolic link.

    Raises InputRejected if it is not a regular file or larger than `limit_bytes`,
    FileNotFoundError if it is gone, ResourceUnavailable if the system can't read it,
    InputIncomplete if it was changed meanwhile.
    """
    try:
        # The look beforehand spares devices and FIFOs, where opening alone has effects;
        # the look at the open file is the one that can't be fooled.
        _require_regular(path.lstat(), path)
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            _require_regular(status, path)
            data = file.read() if status.st_size <= limit_bytes else b""
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:  # its folder was replaced by a file
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # it changed in between
            raise _not_regular(path) from error
        raise ResourceUnavailable(
            f"{_shown(path)} can't be read: {error.strerror} (errno {error.errno})",
            "Check the permissions, the disk and the mount.",
        ) from error
    if (status.st_size, status.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InputIncomplete(
            f"{_shown(path)} was changed while it was read",
            "It is read again once it has stopped changing.",
        )
    if max(status.st_size, len(data)) > limit_bytes:
        raise InputRejected(
            f"{_shown(path)} is larger than {limit_bytes:,} bytes, the most that is read",
            "Save the picture smaller, for example as a JPEG.",
        )
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _require_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(path)


def _not_regular(path: Path) -> InputRejected:
    return InputRejected(
        f"{_shown(path)} is not a regular file, so it was not read",
        "Put a copy of the picture there, not a link, a folder or a device.",
    )


def _shown(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
