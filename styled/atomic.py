"""Atomic, durable file operations: a file appears completely or not at all, also after a crash."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from styled.errors import (
    DiskFailure,
    Forbidden,
    InputStuck,
    NameNotSupported,
    NameTaken,
    ResourceUnavailable,
)
from styled.files import TEMPORARY_PREFIX
from styled.ownership import chown_to_owner_of

COPY_CHUNK_BYTES = 1 << 20
"""Chunk size of copying, in bytes."""

_TEMPORARY_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{32}\.tmp")


def atomic_write(path: Path, data: bytes, *, mode: int | None = None, replace: bool = True) -> None:
    """Write `data` to `path` atomically and durably.

    Args:
        path: Of the file.
        data: Its content.
        mode: Its permissions; None: those that the process gives new files.
        replace: Whether an existing file is replaced.

    Raises:
        NameTaken: there is a file, and it is not to be replaced.
        ResourceUnavailable: the disk is full, read-only or gone.
    """
    writer = AtomicWriter(path, mode)
    writer.write(data)
    writer.commit(replace=replace)


class AtomicWriter:
    """Writes a file in pieces to a temporary file; `commit` renames it to its final name.

    `discard` and any failure delete the temporary file.
    """

    def __init__(self, path: Path, mode: int | None = None) -> None:
        """Open a temporary file beside `path`, with these permissions; None: those of new files.

        Raises:
            ResourceUnavailable: the disk is full, read-only or gone.
        """
        self._path = path
        self._temporary = _temporary_beside(path)
        self._file: IO[bytes] | None = None
        with self._discard_on_error():
            self._file = open(self._temporary, "xb")  # noqa: SIM115  # closed by commit and discard
            chown_to_owner_of(path.parent, self._file.fileno())
            if mode is not None:
                os.fchmod(self._file.fileno(), mode)

    def write(self, data: bytes) -> None:
        """Append to the file.

        Raises:
            ResourceUnavailable: the disk is full, read-only or gone.
        """
        with self._discard_on_error():
            assert self._file is not None, "it has ended"
            self._file.write(data)

    def commit(self, *, replace: bool = True) -> None:
        """Sync the file and rename it to its final name.

        Args:
            replace: Whether an existing file is replaced.

        Raises:
            NameTaken: there is a file, and it is not to be replaced.
            ResourceUnavailable: the disk is full, read-only or gone.
        """
        with self._discard_on_error():
            assert self._file is not None, "it has ended"
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if not replace:
                _require_free(self._path)
            self._temporary.replace(self._path)
        self._file = None
        with resource_errors(self._path):
            sync_folder(self._path.parent)

    def discard(self) -> None:
        """Delete the temporary file, if it was not committed."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._temporary.unlink()
            self._file = None

    @contextmanager
    def _discard_on_error(self) -> Iterator[None]:
        with resource_errors(self._path):
            try:
                yield
            except BaseException:
                self.discard()
                raise


def durable_move(source: Path, destination: Path) -> None:
    """Move a file durably to a free name, also to another file system.

    A new file that takes the source's name while it is copied stays there.

    Raises:
        InputStuck: there is no permission to move the source; it is unchanged.
        NameTaken: the destination exists; the source is unchanged.
        ResourceUnavailable: the destination is full, read-only or gone; the source is unchanged.
    """
    with resource_errors(destination):
        try:
            _require_free(destination)
            source.rename(destination)
        except OSError as error:
            # The error may concern either path: a sticky folder and an immutable file look
            # writable, so the source is to blame if the destination's folder is writable.
            if error.errno in _PERMISSION_ERRORS and is_writable(destination.parent):
                raise input_stuck(source, error) from error
            if error.errno != errno.EXDEV:
                raise
            if not is_writable(source.parent) or _is_kept_by_sticky_bit(source):
                raise input_stuck(source, error) from error  # fail before copying a large file
            moved = _copy(source, destination)
            # Two file systems have no common order of writes: without this, a power cut could
            # keep the deletion of the original and lose the name of its copy.
            sync_folder(destination.parent)
            try:
                if _identity_of(source) == moved:
                    source.unlink()
            except FileNotFoundError:
                pass  # somebody else has removed it meanwhile
            except OSError as unlink_error:
                if unlink_error.errno not in _PERMISSION_ERRORS:
                    raise
                destination.unlink()
                raise input_stuck(source, unlink_error) from unlink_error
        sync_folder(destination.parent)
        sync_folder(source.parent)


def durable_copy(source: Path, destination: Path, *, always_copy: bool = False) -> None:
    """Make a hard link to a file, or a copy if the file system has no hard links.

    Args:
        source: Is not changed.
        destination: A free name.
        always_copy: Never link, so that later writes to one file do not change the other.

    Raises:
        InputStuck: the source can't be read.
        ResourceUnavailable: the destination is full, read-only or gone.
    """
    with resource_errors(destination):
        if always_copy or not _link(source, destination):
            _copy(source, destination)
        sync_folder(destination.parent)


def _link(source: Path, destination: Path) -> bool:
    try:
        os.link(source, destination, follow_symlinks=False)
    except FileExistsError as error:
        raise _Taken(*error.args) from error
    except OSError:
        return False
    return True


def _copy(source: Path, destination: Path) -> tuple[int, int, int]:
    """Copy a file to a free name; return the identity of the copied file."""
    temporary = _temporary_beside(destination)
    before = _identity_of(source)
    try:
        _copy_bytes(source, temporary)
        with suppress(OSError):  # times and permissions are kept if possible
            shutil.copystat(source, temporary, follow_symlinks=False)
        with open(temporary, "rb") as file:
            chown_to_owner_of(destination.parent, file.fileno())
            os.fsync(file.fileno())
        if _identity_of(source) != before:
            raise OSError(errno.EBUSY, "the original changed while it was copied")
        _require_free(destination)
        temporary.replace(destination)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return before


def _require_free(path: Path) -> None:
    """Check just before a rename that it replaces no file of another program."""
    if os.path.lexists(path):
        raise _Taken(errno.EEXIST, "the name was just taken by another file", str(path))


class _Taken(FileExistsError):
    """A file exists under a name that was free."""


def _copy_bytes(source: Path, destination: Path) -> None:
    """Copy the content of a file to a new file.

    Raises:
        InputStuck: the source can't be read.
        OSError: the destination can't be written.
    """
    with open(destination, "xb") as writer:
        try:
            reader = open(source, "rb", opener=_open_no_link)  # noqa: SIM115  # closed just below
        except OSError as error:
            raise input_stuck(source, error) from error
        with reader:
            while True:
                try:
                    data = reader.read(COPY_CHUNK_BYTES)
                except OSError as error:
                    raise input_stuck(source, error) from error
                if not data:
                    return
                writer.write(data)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _is_kept_by_sticky_bit(source: Path) -> bool:
    """Return whether the folder is sticky and neither it nor the file belongs to this user."""
    folder = source.parent.stat()
    owners = (0, folder.st_uid, source.lstat().st_uid)
    return bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in owners


def _identity_of(path: Path) -> tuple[int, int, int]:
    info = os.stat(path, follow_symlinks=False)
    return info.st_ino, info.st_size, info.st_mtime_ns


def make_folder(path: Path) -> None:
    """Make a folder and its parents, durably.

    Raises:
        ResourceUnavailable: it can't be made.
    """
    with resource_errors(path):
        if os.path.isdir(path):
            return
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(missing):
            chown_to_owner_of(folder.parent, folder)
            sync_folder(folder.parent)


def is_writable(folder: Path) -> bool:
    """Return whether permissions and mount options allow making files in a folder."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def sync_folder(folder: Path) -> None:
    """Sync a folder (fsync), which makes the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems can't sync a folder; they order renames themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sweep_temporaries(root: Path, on_progress: Callable[[], None] = lambda: None) -> int:
    """Delete temporary files that dead processes have left below `root`; return their number.

    Args:
        root: May have millions of files.
        on_progress: Called for every folder; an exception it raises aborts.
    """
    deleted = 0
    for folder, _, names in os.walk(root):
        on_progress()
        for name in names:
            if _TEMPORARY_NAME.fullmatch(name):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))
                    deleted += 1
    return deleted


def input_stuck(source: Path, error: BaseException | None) -> InputStuck:
    """Return the error for an input that can't be moved for lack of permission."""
    if not is_writable(source.parent):
        reason = f"the folder {source.parent} may not be changed by styled"
    else:
        reason = f"the system forbids it ({getattr(error, 'strerror', None) or 'unknown reason'})"
    remedies = ["mount it writable"] if getattr(error, "errno", None) == errno.EROFS else []
    return InputStuck(
        f"{source} can't be moved: {reason}",
        *remedies,
        "give styled's user write permission to that folder; where it is sticky (chmod -t "
        "removes that), the file has to belong to styled's user, and it may not be immutable "
        "(lsattr shows that)",
        "or, for photos that are painted, set output.after_success to keep",
    )


def durable_delete(path: Path) -> None:
    """Delete a file, durably.

    Raises:
        Forbidden: permissions or a read-only mount.
        ResourceUnavailable: the disk is failing or gone.
    """
    with resource_errors(path):
        path.unlink()
        sync_folder(path.parent)


@contextmanager
def resource_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into a `ResourceUnavailable` with a message and a remedy.

    Raises:
        NameNotSupported: the file system does not support the name.
        NameTaken: there is a file that must not be replaced.
        DiskFailure: the disk is full or failing.
        Forbidden: permissions or a read-only mount.
        ResourceUnavailable: for any other OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NAME_ERRORS:
            raise NameNotSupported(
                f"{path} can't be written: {error.strerror}",
                "the file system does not take this name: rename the photo in the inbox",
            ) from error
        if isinstance(error, _Taken):
            raise NameTaken(
                f"{path} was just taken by another file",
                "another name is chosen at the next attempt",
            ) from error
        remedy = _REMEDIES.get(error.errno or 0, "see what the kernel says about that disk: dmesg")
        kind: type[ResourceUnavailable] = ResourceUnavailable
        if error.errno in _DISK_ERRORS:
            kind = DiskFailure
        elif error.errno in _PERMISSION_ERRORS:
            kind = Forbidden
        raise kind(f"{path} can't be written: {error.strerror or error}", remedy) from error


_PERMISSION_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

# For instance a colon in a name on FAT or NTFS.
_NAME_ERRORS = frozenset({errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ})

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EROFS: "mount it writable",
    errno.EACCES: "give the daemon's user write permission",
    errno.EPERM: "give the daemon's user write permission",
    errno.ENOENT: "mount it or make it again",
}


def _temporary_beside(path: Path) -> Path:
    # Not derived from the final name, which may already have the maximum length.
    return path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}.tmp"
