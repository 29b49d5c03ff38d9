"""Files that appear whole or not at all, and stay after a power cut."""

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

from styled.errors import DiskTrouble, Forbidden, InputStuck, PlaceRefused, ResourceUnavailable
from styled.files import TEMPORARY_PREFIX
from styled.ownership import give_to_owner_of

COPIED_AT_ONCE = 1 << 20
"""Bytes."""

_TEMPORARY_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{32}\.tmp")


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what is there, so that nobody ever sees a part of it.

    Raises:
        ResourceUnavailable: the disk is full, read-only or gone.
    """
    writer = AtomicWriter(path)
    writer.write(data)
    writer.commit()


class AtomicWriter:
    """Writes a file piece by piece; it appears under its name once it is whole and durable.

    Any failure, and `discard`, leaves nothing behind.
    """

    def __init__(self, path: Path) -> None:
        """Begin to write to `path`.

        Raises:
            ResourceUnavailable: the disk is full, read-only or gone.
        """
        self._path = path
        self._temporary = _temporary_beside(path)
        self._file: IO[bytes] | None = None
        with self._discarded_on_failure():
            self._file = open(self._temporary, "xb")  # noqa: SIM115  # closed by commit and discard
            give_to_owner_of(path.parent, self._file.fileno())

    def write(self, data: bytes) -> None:
        """Add to the file.

        Raises:
            ResourceUnavailable: as for a new one.
        """
        with self._discarded_on_failure():
            assert self._file is not None, "it has ended"
            self._file.write(data)

    def commit(self) -> None:
        """Let the file appear, replacing what is there.

        Raises:
            ResourceUnavailable: as for a new one.
        """
        with self._discarded_on_failure():
            assert self._file is not None, "it has ended"
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
        self._file = None
        with resource_errors(self._path):
            sync_folder(self._path.parent)

    def discard(self) -> None:
        """Delete what has been written so far."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._temporary.unlink()
            self._file = None

    @contextmanager
    def _discarded_on_failure(self) -> Iterator[None]:
        with resource_errors(self._path):
            try:
                yield
            except BaseException:
                self.discard()
                raise


def durable_move(source: Path, destination: Path) -> None:
    """Move a file to a name that is free, even to another file system, never losing it.

    Raises:
        InputStuck: the source may not be moved; it is still where it was, and only there.
        ResourceUnavailable: the destination is full, read-only or gone; likewise.
    """
    with resource_errors(destination):
        try:
            source.rename(destination)
        except OSError as error:
            # The kernel does not say which of the two it is about: a sticky folder and an
            # immutable file look writable.
            if error.errno in _FORBIDDEN and is_writable(destination.parent):
                raise input_stuck(source, error) from error
            if error.errno != errno.EXDEV:
                raise
            if not is_writable(source.parent) or _is_kept_by_sticky_bit(source):
                raise input_stuck(source, error) from error  # before gigabytes are copied
            _copy(source, destination)
            # Two file systems know of no common order: without this a power cut could
            # keep the deletion of the original and lose the name of its copy.
            sync_folder(destination.parent)
            try:
                source.unlink()
            except OSError as forbidden:
                if forbidden.errno not in _FORBIDDEN:
                    raise
                destination.unlink()
                raise input_stuck(source, forbidden) from forbidden
        sync_folder(destination.parent)
        sync_folder(source.parent)


def durable_copy(source: Path, destination: Path, *, always_copy: bool = False) -> None:
    """Give a file a second name; where the file system has no hard links, copy it.

    Args:
        source: Stays as it is.
        destination: A name that is free.
        always_copy: Copy in any case, so that writing to the one never changes the other.

    Raises:
        ResourceUnavailable: as for `durable_move`.
    """
    with resource_errors(destination):
        if always_copy or not _link(source, destination):
            _copy(source, destination)
        sync_folder(destination.parent)


def _link(source: Path, destination: Path) -> bool:
    try:
        os.link(source, destination, follow_symlinks=False)
    except FileExistsError:
        raise  # copying would replace it
    except OSError:
        return False
    return True


def _copy(source: Path, destination: Path) -> None:
    temporary = _temporary_beside(destination)
    before = _state_of(source)
    try:
        _copy_bytes(source, temporary)
        with suppress(OSError):  # times and permissions are a courtesy
            shutil.copystat(source, temporary, follow_symlinks=False)
        with open(temporary, "rb") as file:
            give_to_owner_of(destination.parent, file.fileno())
            os.fsync(file.fileno())
        if _state_of(source) != before:
            raise OSError(errno.EBUSY, "the original changed while it was copied")
        temporary.replace(destination)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _copy_bytes(source: Path, destination: Path) -> None:
    """Copy what is in a file to a new one.

    Raises:
        InputStuck: the source can't be read, which is not the destination's fault.
        OSError: the destination can't be written.
    """
    with open(destination, "xb") as written:
        try:
            read = open(source, "rb", opener=_open_no_link)  # noqa: SIM115  # closed just below
        except OSError as error:
            raise input_stuck(source, error) from error
        with read:
            while True:
                try:
                    data = read.read(COPIED_AT_ONCE)
                except OSError as error:
                    raise input_stuck(source, error) from error
                if not data:
                    return
                written.write(data)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _is_kept_by_sticky_bit(source: Path) -> bool:
    """Tell whether only the owner of a file, or of its folder, may take it out, and we are not."""
    folder = source.parent.stat()
    owners = (0, folder.st_uid, source.lstat().st_uid)
    return bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in owners


def _state_of(path: Path) -> tuple[int, int, int]:
    facts = os.stat(path, follow_symlinks=False)
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


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
            give_to_owner_of(folder.parent, folder)
            sync_folder(folder.parent)


def is_writable(folder: Path) -> bool:
    """Tell whether files may be made in a folder, as far as permissions and mounts say."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems can't sync a folder; they order renames themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sweep_temporaries(root: Path, go_on: Callable[[], None] = lambda: None) -> int:
    """Delete what a dead process left half-written below `root`; return how many files.

    There may be millions: `go_on` is called at every folder, and may raise.
    """
    swept = 0
    for folder, _, names in os.walk(root):
        go_on()
        for name in names:
            if _TEMPORARY_NAME.fullmatch(name):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))
                    swept += 1
    return swept


def input_stuck(source: Path, error: BaseException | None) -> InputStuck:
    """Return the error for an input that may not be moved: others may."""
    if not is_writable(source.parent):
        why = f"the folder {source.parent} may not be changed by styled"
    else:
        why = f"the system forbids it ({getattr(error, 'strerror', None) or 'nobody knows why'})"
    remedies = ["mount it writable"] if getattr(error, "errno", None) == errno.EROFS else []
    return InputStuck(
        f"{source} can't be moved: {why}",
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
    """Turn what the operating system refuses about `path` into words.

    Raises:
        PlaceRefused: the name can't be had on this file system.
        DiskTrouble: the disk is full or failing.
        Forbidden: permissions or a read-only mount.
        ResourceUnavailable: for any other OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _OF_A_NAME:
            raise PlaceRefused(
                f"{path} can't be written: {error.strerror}",
                "the file system does not take this name: rename the photo in the inbox",
            ) from error
        remedy = _REMEDIES.get(error.errno or 0, "work goes on by itself once that is mended")
        kind: type[ResourceUnavailable] = ResourceUnavailable
        if error.errno in _OF_A_DISK:
            kind = DiskTrouble
        elif error.errno in _FORBIDDEN:
            kind = Forbidden
        raise kind(f"{path} can't be written: {error.strerror or error}", remedy) from error


_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

# Such as a colon in a name on a disk that Windows has formatted.
_OF_A_NAME = frozenset({errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ})

_OF_A_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})

_REMEDIES = {
    errno.ENOSPC: "free some space; work goes on by itself",
    errno.EDQUOT: "raise the quota or free some space; work goes on by itself",
    errno.EROFS: "mount it writable; work goes on by itself",
    errno.EACCES: "give the daemon's user write permission; work goes on by itself",
    errno.EPERM: "give the daemon's user write permission; work goes on by itself",
    errno.ENOENT: "mount it or make it again; work goes on by itself",
}


def _temporary_beside(path: Path) -> Path:
    # Not derived from the final name, which may already be as long as a name can be.
    return path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}.tmp"
