"""The partial file of a download: locked, and kept so that a later start can resume.

It is next to the final path as `.NAME.part`, with metadata on the version of the file that it
is a part of in `.NAME.part.json`. It is kept only if the download can be resumed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BufferedRandom
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Version:
    """The version of the file that a server sends.

    Attributes:
        validator: The ETag or Last-Modified date, for `If-Range`; None if the server gives
            neither, or can't serve a part of a file.
        total_bytes: The size of the whole file, 0 if the server does not say.
    """

    validator: str | None = None
    total_bytes: int = 0


class PartialFile:
    """The partial file, open and locked.

    Attributes:
        bytes_done: Its size.
        version: The version of the file that it is a part of.
        joined: Whether it consists of parts of several connections, which may not match.
    """

    def __init__(self, path: Path, file: BufferedRandom, *, shared: bool) -> None:
        """Continue with the content of an open file.

        Args:
            path: The path of the partial file.
            file: Open for reading and appending.
            shared: Whether a later start can find it under this name.
        """
        self._path = path
        self._file = file
        self._shared = shared
        self._published = False
        self.bytes_done = os.fstat(file.fileno()).st_size
        self.version = _read_version(path)
        self.joined = self.bytes_done > 0

    @property
    def can_resume(self) -> bool:
        """Whether the missing part can be requested."""
        return self.bytes_done > 0 and self.version.validator is not None

    @property
    def is_complete(self) -> bool:
        """Whether it has the size that the server announced."""
        return 0 < self.bytes_done == self.version.total_bytes

    def restart(self, version: Version) -> None:
        """Discard the content and start again with another version."""
        self._file.truncate(0)
        self.bytes_done, self.version, self.joined = 0, version, False
        _metadata_path(self._path).write_text(json.dumps(asdict(version)))

    def resume(self, version: Version) -> None:
        """Record that the following bytes are the missing part."""
        self.version, self.joined = version, True

    def append(self, data: bytes) -> None:
        """Append received bytes."""
        self._file.write(data)
        self.bytes_done += len(data)

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256, computed from the file, not from the bytes received."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def publish(self, path: Path) -> None:
        """Rename the file to its final path, durably (fsync of file and folder)."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.replace(path)
        self._published = True
        _metadata_path(self._path).unlink(missing_ok=True)
        _fsync_folder(path.parent)

    def close(self) -> None:
        """Close the file, which releases the lock; delete it if it can't be resumed."""
        if not self._published and not (self._shared and self.can_resume):
            # Unlink before unlocking: afterwards another process may be using the file.
            for path in (self._path, _metadata_path(self._path)):
                with suppress(OSError):
                    path.unlink()
        with suppress(OSError):  # `append` has already reported a full disk
            self._file.close()


@contextmanager
def locked_partial(path: Path, wait: Callable[[int, int], None]) -> Iterator[PartialFile]:
    """Open the partial file of `path`, locked for this process, while the context lasts.

    Args:
        path: The final path.
        wait: Called with bytes done and total bytes each time that another process holds the
            lock; sleeps for the polling interval, and may raise to stop waiting.

    Raises:
        OSError: the file can't be created.
    """
    shared_path = path.parent / f".{path.name}.part"
    file = _open_and_lock(shared_path, wait)
    if file is not None:
        partial = PartialFile(shared_path, file, shared=True)
    else:
        private_path = path.parent / f".{path.name}.{uuid.uuid4().hex}.part"
        partial = PartialFile(private_path, _open(private_path), shared=False)
    try:
        yield partial
    finally:
        partial.close()


# flock's errors on file systems without locks, such as some network file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _open_and_lock(path: Path, wait: Callable[[int, int], None]) -> BufferedRandom | None:
    """Return the file, open and locked, or None if the file system has no locks."""
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if error.errno in _NO_LOCKS:
                path.unlink(missing_ok=True)
                return None
            if not isinstance(error, BlockingIOError):
                raise
            with suppress(FileNotFoundError):
                wait(path.stat().st_size, _read_version(path).total_bytes)
        else:
            if _is_same_file(path, file):
                return file
            # The process that held the lock has renamed or removed the file.
            file.close()


def _open(path: Path) -> BufferedRandom:
    # Append mode: opening does not truncate, and reading does not move the write position.
    return open(path, "a+b")  # closed by `PartialFile.close`


def _is_same_file(path: Path, file: BufferedRandom) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _metadata_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_version(path: Path) -> Version:
    # Metadata torn by a crash is ignored: the download starts again.
    try:
        metadata = json.loads(_metadata_path(path).read_bytes())
    except (OSError, ValueError):
        return Version()
    match metadata:
        case {"validator": str() | None as validator, "total_bytes": int() as total_bytes}:
            return Version(validator, total_bytes)
        case _:
            return Version()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems can't fsync a folder; they order renames themselves.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
