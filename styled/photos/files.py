"""Reads regular files, without ever blocking on a FIFO or a device."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from styled.errors import InputIncomplete, InputRejected, ResourceUnavailable
from styled.files import readable

DEFAULT_LIMIT_BYTES = 2 * 1024**3


def read_bytes(path: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> bytes:
    """Read a whole regular file, without blocking and without following a symbolic link.

    Raises:
        InputRejected: It is not a regular file, or larger than `limit_bytes`.
        FileNotFoundError: It does not exist.
        ResourceUnavailable: The system can't read it.
        InputIncomplete: It was changed while it was read.
    """
    try:
        # The check before opening keeps devices and FIFOs from being opened, which may have side
        # effects. Only the check of the open file is safe from a race.
        _require_regular(path.lstat(), path)
        with open(path, "rb", buffering=0, opener=_open_nonblocking) as file:
            status = os.fstat(file.fileno())
            _require_regular(status, path)
            data = file.read() if status.st_size <= limit_bytes else b""
            status_after = os.fstat(file.fileno())
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:  # its folder was replaced by a file
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except OSError as error:
        if error.errno in (
            errno.ELOOP,
            errno.ENXIO,
            errno.EISDIR,
        ):  # replaced after the first check
            raise _not_regular(path) from error
        raise ResourceUnavailable(
            f"{readable(path)} can't be read: {error.strerror} (errno {error.errno})",
            "Check the permissions, the disk and the mount.",
        ) from error
    if (status.st_size, status.st_mtime_ns) != (status_after.st_size, status_after.st_mtime_ns):
        raise InputIncomplete(
            f"{readable(path)} was changed while it was read",
            "It is read again once it has stopped changing.",
        )
    if max(status.st_size, len(data)) > limit_bytes:
        raise InputRejected(
            f"{readable(path)} is larger than {limit_bytes:,} bytes, the most that is read",
            "Save the picture smaller, for example as a JPEG.",
        )
    return data


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _require_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(path)


def _not_regular(path: Path) -> InputRejected:
    return InputRejected(
        f"{readable(path)} is not a regular file, so it was not read",
        "Put a copy of the picture there, not a link, a folder or a device.",
    )
