"""The gallery's files: the page, its record files, its thumbnails, and a lock.

Other programs may write to the same folder. So only regular files are read, nothing is written
through a symbolic link, and only files with exactly the names that the gallery uses are deleted.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from styled import photos
from styled.atomic import atomic_write, make_folder, resource_errors
from styled.delivery.gallery_records import GalleryRecord
from styled.delivery.page import record_file, records_in
from styled.errors import InputRejected, ResourceUnavailable
from styled.files import TEMPORARY_PREFIX, FileStamp, file_stamp
from styled.mounts import Mounts
from styled.ownership import chown_to_owner_of

PAGE, FILES = "gallery.html", "gallery_files"
NOW = "now.js"
"""The file in `gallery_files/live` that says what is being painted."""

_GENERATOR_TAG = b'<meta name="generator" content="styled">'
_RECORD_FILE_NAME = re.compile(r"[0-9]{6}\.js")
_THUMBNAIL = re.compile(r"([0-9A-Za-z_-]{1,64})-(before|after)\.webp")
_LIVE = re.compile(r"now\.js|[0-9A-Za-z_-]{1,64}\.jpg")
_MAX_BYTES = 1 << 26


class GalleryFiles:
    """The files of one gallery.

    Attributes:
        page: Path of the HTML.
    """

    def __init__(self, outbox: Path, mounts: Mounts | None) -> None:
        """Keep them in `outbox`, as long as `mounts` says that it is mounted."""
        self.page = outbox / PAGE
        self._outbox = outbox
        self._files = outbox / FILES
        self._mounts = mounts

    def _require_mounted(self) -> None:
        if self._mounts is not None:
            self._mounts.require_mounted(self._outbox)

    @contextmanager
    def locked(self, *, wait: bool) -> Iterator[None]:
        """Lock the gallery for this process: `styled gallery` may run beside the daemon.

        Args:
            wait: Wait for the lock instead of raising.

        Raises:
            ResourceUnavailable: another process holds the lock, perhaps for long; or the outbox
                is full, read-only or gone.
        """
        path = self._folder() / ".lock"
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with resource_errors(path):
            descriptor = os.open(path, flags, 0o644)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _not_ours(path)
                chown_to_owner_of(path.parent, descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else _LOCK_NOWAIT)
                except BlockingIOError:
                    raise ResourceUnavailable(
                        f"{self.page} is being rebuilt by another process",
                        "wait until that has ended",
                    ) from None
                yield
            finally:
                os.close(descriptor)

    # The page

    def read_html(self) -> bytes | None:
        """Return the page, None if there is none.

        Raises:
            ResourceUnavailable: a file of another program has its name.
        """
        data = read_regular(self.page)
        if data is None and not os.path.lexists(self.page):
            return None
        if data is None or _GENERATOR_TAG not in data:
            raise _not_ours(self.page)
        return data

    def write_html(self, data: bytes) -> None:
        """Replace the page.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        self._require_mounted()
        atomic_write(self.page, data)

    def page_stamp(self) -> FileStamp | None:
        """Return the stamp of the page, by which a rewrite is detected."""
        return file_stamp(self.page)

    # Record files

    def read_records(self, number: int) -> list[GalleryRecord] | None:
        """Return the records of a record file, None if it does not exist or can't be read."""
        if not os.path.lexists(self._files / "records"):
            with suppress(OSError):  # a process has died in `replace_records`
                (self._files / "records.new").rename(self._files / "records")
        data = read_regular(self._files / "records" / f"{number:06}.js")
        try:
            return None if data is None else list(records_in(data))
        except ValueError:
            return None

    def write_records(
        self, number: int, records: Sequence[GalleryRecord], folder: str = "records"
    ) -> None:
        """Write a record file.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        atomic_write(self._folder(folder) / f"{number:06}.js", record_file(number, records))

    def clear_new_records(self) -> None:
        """Make `records.new` an empty folder, for record files that will replace all others."""
        shutil.rmtree(self._folder("records.new"), ignore_errors=True)
        self._folder("records.new")

    def replace_records(self) -> None:
        """Replace all record files by those in `records.new`.

        Raises:
            ResourceUnavailable: the outbox is read-only or gone.
        """
        old, new = self._folder("records"), self._folder("records.new")
        with resource_errors(old):
            shutil.rmtree(old)
            new.rename(old)

    # Thumbnails

    def thumb(self, job_id: str, which: str) -> Path:
        """Return the path of a thumbnail; `which` is `before` or `after`."""
        return self._files / "thumbs" / job_id[:2] / f"{job_id}-{which}.webp"

    def has(self, thumb: Path) -> bool:
        """Return whether a thumbnail exists."""
        return thumb.is_file() and not thumb.is_symlink()

    def write_thumb(self, thumb: Path, data: bytes) -> None:
        """Write a thumbnail.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        atomic_write(self._folder("thumbs", thumb.parent.name) / thumb.name, data)

    def delete_thumbs(self, keep: set[str], before: float) -> None:
        """Delete the thumbnails of all jobs except those with the ids in `keep`.

        Files modified after `before` (Unix time) stay: they belong to results that are being
        published.
        """
        for folder in _folders_in(self._folder("thumbs")):
            for path in folder.iterdir():
                match = _THUMBNAIL.fullmatch(path.name)
                with suppress(FileNotFoundError):
                    if match and match[1] not in keep and path.lstat().st_mtime < before:
                        path.unlink()

    # What is being painted

    def write_live(self, name: str, data: bytes) -> None:
        """Write a file that shows what is being painted.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        atomic_write(self._folder("live") / name, data)

    def delete_live(self, name: str) -> None:
        """Delete one of these files.

        Raises:
            ResourceUnavailable: the outbox is read-only or gone.
        """
        path = self._folder("live") / name
        with resource_errors(path):
            path.unlink(missing_ok=True)

    def clear_live(self) -> None:
        """Delete all of these files, and their folder unless it has others.

        Raises:
            ResourceUnavailable: the outbox is read-only or gone.
        """
        if not (self._files / "live").is_dir():
            return
        folder = self._folder("live")
        with resource_errors(folder):
            for path in folder.iterdir():
                if _LIVE.fullmatch(path.name) or path.name.startswith(TEMPORARY_PREFIX):
                    path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()

    # All files

    def chown(self, uid: int, gid: int) -> None:
        """Change the owner of all files of the gallery, for instance to the daemon's user.

        Raises:
            OSError: this process lacks the permission.
        """
        os.chown(self.page, uid, gid, follow_symlinks=False)
        for folder, folders, names in os.walk(self._files):
            for name in (".", *folders, *names):
                os.chown(Path(folder, name), uid, gid, follow_symlinks=False)

    def _folder(self, *names: str) -> Path:
        """Make a folder of the gallery, and check that no part of its path is a link.

        Raises:
            ResourceUnavailable: a part is a link, or the folder can't be made.
        """
        self._require_mounted()
        folder = self._files
        for name in ("", *names):
            folder = folder / name
            if os.path.islink(folder):
                raise _not_ours(folder)
        make_folder(folder)
        return folder


_LOCK_NOWAIT = fcntl.LOCK_EX | fcntl.LOCK_NB


def read_regular(path: Path) -> bytes | None:
    """Return the bytes of a regular file, None if there is none or it is too large."""
    try:
        return photos.read_bytes(path, limit_bytes=_MAX_BYTES)
    except (FileNotFoundError, InputRejected, ResourceUnavailable):
        return None


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


def _not_ours(path: Path) -> ResourceUnavailable:
    return ResourceUnavailable(
        f"{path} was not made by styled, and is left alone",
        "move it away, or set `output.gallery` to false",
    )
