"""What has come so far of a file that is being downloaded.

It lies beside the final name as `.NAME.part`, with a note of which version of the file it
is a part of (`.NAME.part.json`), so that a later start can go on from there. It stays
only where it can be gone on with.
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
    """Which version of a file a server is serving.

    Attributes:
        validator: The ETag or date by which the server knows it again; None where it gives
            neither, or can't serve a part of a file.
        total_bytes: The size of the whole, 0 where the server does not say.
    """

    validator: str | None = None
    total_bytes: int = 0


class Partial:
    """The partial file, open and locked.

    Attributes:
        bytes_done: How much of it is there.
        version: What it is a part of.
        joined: Whether it came in more than one piece, so that the pieces may not fit.
    """

    def __init__(self, path: Path, file: BufferedRandom, *, shared: bool) -> None:
        """Go on with what an open file holds.

        Args:
            path: Where the file lies.
            file: Open for reading and appending.
            shared: Whether a later start looks for it under this name.
        """
        self._path = path
        self._file = file
        self._shared = shared
        self._published = False
        self.bytes_done = os.fstat(file.fileno()).st_size
        self.version = _noted_version(path)
        self.joined = self.bytes_done > 0

    @property
    def can_resume(self) -> bool:
        """Whether a server can be asked for the rest."""
        return self.bytes_done > 0 and self.version.validator is not None

    @property
    def is_all_there(self) -> bool:
        """Whether it has the size that the server promised."""
        return 0 < self.bytes_done == self.version.total_bytes

    def restart(self, version: Version) -> None:
        """Throw away what is there, and begin with another version."""
        self._file.truncate(0)
        self.bytes_done, self.version, self.joined = 0, version, False
        _note_of(self._path).write_text(json.dumps(asdict(version)))

    def resume(self, version: Version) -> None:
        """Take note that what comes now is the rest."""
        self.version, self.joined = version, True

    def append(self, data: bytes) -> None:
        """Add what has come."""
        self._file.write(data)
        self.bytes_done += len(data)

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of what is in the file: not of what was received."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def publish(self, path: Path) -> None:
        """Give the file its final name, durably."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.replace(path)
        self._published = True
        _note_of(self._path).unlink(missing_ok=True)
        _sync_folder(path.parent)

    def close(self) -> None:
        """Close it, which gives up the lock; keep it only where it can be gone on with."""
        if not self._published and not (self._shared and self.can_resume):
            # Unlinked before it is unlocked: afterwards it may be another process's.
            for path in (self._path, _note_of(self._path)):
                with suppress(OSError):
                    path.unlink()
        with suppress(OSError):  # a full disk has been reported by `append`
            self._file.close()


@contextmanager
def locked_partial(path: Path, wait: Callable[[int, int], None]) -> Iterator[Partial]:
    """Have the partial file of `path` for this process alone while the context lasts.

    Args:
        path: The final name.
        wait: Called with bytes done and bytes in all each time that another process is
            found at work on it; takes a moment, and may raise to stop waiting.

    Raises:
        OSError: the file can't be made.
    """
    shared_path = path.parent / f".{path.name}.part"
    file = _opened_and_locked(shared_path, wait)
    if file is not None:
        partial = Partial(shared_path, file, shared=True)
    else:
        private_path = path.parent / f".{path.name}.{uuid.uuid4().hex}.part"
        partial = Partial(private_path, _opened(private_path), shared=False)
    try:
        yield partial
    finally:
        partial.close()


# What flock answers where the file system has no locks, as some network file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _opened_and_locked(path: Path, wait: Callable[[int, int], None]) -> BufferedRandom | None:
    """Return the file, open and locked, or None where nothing can be locked."""
    while True:
        file = _opened(path)
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
                wait(path.stat().st_size, _noted_version(path).total_bytes)
        else:
            if _is_at(path, file):
                return file
            # Whoever had the lock has renamed or removed the file meanwhile.
            file.close()


def _opened(path: Path) -> BufferedRandom:
    # Appending, so that opening does not empty it and reading does not move the end.
    return open(path, "a+b")  # `Partial.close` closes it


def _is_at(path: Path, file: BufferedRandom) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _noted_version(path: Path) -> Version:
    # A note that a crash has torn is no note: the download starts again.
    try:
        note = json.loads(_note_of(path).read_bytes())
    except (OSError, ValueError):
        return Version()
    match note:
        case {"validator": str() | None as validator, "total_bytes": int() as total_bytes}:
            return Version(validator, total_bytes)
        case _:
            return Version()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems can't sync a folder; they order renames themselves.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
