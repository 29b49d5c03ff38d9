"""Detects whether a process of this machine has a file open for writing.

Linux grants a read lease (`fcntl(2)`, F_SETLEASE) on a file only while no process has it open for
writing. This requires the file's owner or CAP_LEASE, and a local file system: an NFS client may
refuse leases for other reasons, and writers on other machines are not detected.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from enum import Enum, auto
from pathlib import Path

from styled.mounts import mount_of


class Writers(Enum):
    """Whether any process has a file open for writing."""

    NONE = auto()
    SOME = auto()
    UNKNOWN = auto()


def open_regular(path: Path) -> int:
    """Return a read-only descriptor of a regular file.

    Never blocks, and never opens a link, a pipe or a device.

    Raises:
        BlockingIOError: another program has a lease on it, as Samba has while its client caches.
        FileNotFoundError: there is not a regular file.
        OSError: it can't be opened, for instance because of a permission.
    """
    # Opening a device may have side effects, so the type is checked before and after.
    if stat.S_ISREG(os.lstat(path).st_mode):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)  # the file was replaced in between
    raise FileNotFoundError(errno.ENOENT, "is not a regular file", str(path))


class WriterCheck:
    """Checks whether files are open for writing; caches which file systems are local."""

    def __init__(self) -> None:
        self._is_local: dict[int, bool] = {}

    def forget_mounts(self) -> None:
        """Clear the cache of local file systems: device numbers may be reused."""
        self._is_local.clear()

    def writers(self, path: Path) -> Writers:
        """Return whether the regular file at `path` is open for writing."""
        try:
            descriptor = open_regular(path)
        except BlockingIOError:
            return Writers.SOME
        except OSError:
            return Writers.UNKNOWN
        try:
            return self.writers_of(descriptor, path)
        finally:
            os.close(descriptor)

    def writers_of(self, descriptor: int, path: Path) -> Writers:
        """Return whether a file is open for writing.

        The lease is held for microseconds. If a writer opens the file in that time, this process
        gets SIGIO, which would terminate it by default: the process must ignore SIGIO.

        Args:
            descriptor: Of the file, opened read-only.
            path: Of the same file, to find its mount.
        """
        if not self._is_on_local_disk(os.fstat(descriptor).st_dev, path):
            return Writers.UNKNOWN
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            # EACCES: another's file, without CAP_LEASE. EINVAL: a file system without leases.
            return Writers.SOME if error.errno == errno.EAGAIN else Writers.UNKNOWN
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return Writers.NONE

    def _is_on_local_disk(self, device: int, path: Path) -> bool:
        is_local = self._is_local.get(device)  # another thread may clear the cache at any time
        if is_local is None:
            mount = mount_of(path)
            is_local = self._is_local[device] = mount is not None and not mount.is_remote
        return is_local
