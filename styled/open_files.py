"""Whether a process of this machine still has a file open for writing.

Linux grants a read lease (`fcntl(2)`, F_SETLEASE) on a file only while nobody has it open for
writing. That needs the file's owner or CAP_LEASE, and a local file system: an NFS client refuses
leases for reasons of its own, and the writers of other machines are not seen.
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
    """Whether somebody has a file open for writing."""

    NONE = auto()
    SOME = auto()
    UNKNOWN = auto()


def open_regular(path: Path) -> int:
    """Return a read-only descriptor of a regular file.

    Never waits, and never opens a link, a pipe or a device.

    Raises:
        BlockingIOError: another program has a lease on it, as Samba has where its client caches.
        FileNotFoundError: there is no regular file.
        OSError: it can't be opened, for instance because of a permission.
    """
    # Opening a device may have effects of its own, so it is not even tried.
    if stat.S_ISREG(os.lstat(path).st_mode):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)  # it was replaced in between
    raise FileNotFoundError(errno.ENOENT, "is no regular file", str(path))


class WriterCheck:
    """Tells whether files are open for writing; remembers which file systems are local."""

    def __init__(self) -> None:
        self._is_local: dict[int, bool] = {}

    def forget_mounts(self) -> None:
        """Ask anew which file systems are local: a device number may have been used again."""
        self._is_local.clear()

    def writers(self, path: Path) -> Writers:
        """Tell whether the regular file at `path` is open for writing."""
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
        """Tell whether a file is open for writing.

        Args:
            descriptor: Of the file, open for reading alone.
            path: Of the same file, to find its mount by.

        A writer that opens the file while the lease is held, which is for microseconds, raises
        SIGIO in this process, whose default ends it: whoever calls this ignores SIGIO.
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
        is_local = self._is_local.get(device)  # another thread may forget it at any moment
        if is_local is None:
            mount = mount_of(path)
            is_local = self._is_local[device] = mount is not None and not mount.is_remote
        return is_local
