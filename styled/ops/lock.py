"""Ensures one daemon for each state folder, by a lock that ends with its process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from styled.errors import InUse, ResourceUnavailable
from styled.ownership import chown_to_owner_of

LOCK_ATTEMPTS = 41
LOCK_RETRY_SECONDS = 0.05
"""Two seconds in all: on a busy machine, a killed process may take that long to end."""


class InstanceLock:
    """An advisory lock (flock) on a file that holds its owner's process id.

    The kernel releases it when the process ends for any reason, so a crash leaves no stale lock.
    """

    def __init__(self, path: Path) -> None:
        """Use the file at `path`; it is locked by `acquire`."""
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Acquire the lock.

        Raises:
            InUse: another process holds it.
            ResourceUnavailable: the file can't be made.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ResourceUnavailable(
                f"{self._path} can't be written: {error.strerror}",
                "give the daemon's user write permission to the state folder",
            ) from error
        try:
            _lock_exclusively(descriptor)
        except OSError as error:
            owner = os.read(descriptor, 100).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise InUse(
                f"another styled (process {owner}) already works on {self._path.parent}",
                "stop that one first, or give this one a configuration with other folders",
            ) from error
        chown_to_owner_of(self._path.parent, descriptor)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def owner(self) -> int | None:
        """Return the id of the process that holds the lock now, None if it is free.

        Raises:
            ResourceUnavailable: the file can't be read, for instance because of a permission.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ResourceUnavailable(
                f"it is unknown whether styled is running: {self._path} can't be read: "
                f"{error.strerror}",
                "ask as the user that styled runs as (sudo -u styled ...), or as root",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.read(descriptor, 100).decode(errors="replace").strip()
            return int(text) if text.isdigit() else None
        finally:
            os.close(descriptor)
        return None


def _lock_exclusively(descriptor: int) -> None:
    """Lock an open file, or raise the OSError of the last of a few attempts.

    It is retried because `owner()` of another process holds a shared lock for microseconds, and
    because a daemon that was killed keeps its lock until its last thread has ended.
    """
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if attempt == LOCK_ATTEMPTS - 1:
                raise
            time.sleep(LOCK_RETRY_SECONDS)
