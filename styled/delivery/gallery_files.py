"""The gallery's files: the page, its data pages, its small pictures, and a lock.

They lie in a folder that others may write to. So nothing is read that could block, nothing is
written through a link, and nothing is deleted that does not have the very name of one of ours.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from styled import photos
from styled.atomic import atomic_write, make_folder, resource_errors
from styled.delivery.page import page_file, records_in
from styled.delivery.records import Record
from styled.errors import InputRejected, ResourceUnavailable
from styled.ownership import give_to_owner_of

PAGE, FILES = "gallery.html", "gallery_files"

_OURS = b'<meta name="generator" content="styled">'
_DATA_PAGE = re.compile(r"[0-9]{6}\.js")
_SMALL_PICTURE = re.compile(r"([0-9A-Za-z_-]{1,64})-(before|after)\.webp")
_LARGEST_BYTES = 1 << 26


class GalleryFiles:
    """The files of one gallery.

    Attributes:
        page: The HTML.
    """

    def __init__(self, outbox: Path, require_mounted: Callable[[Path], None]) -> None:
        """Find them in `outbox`, as long as `require_mounted` does not object."""
        self.page = outbox / PAGE
        self._outbox = outbox
        self._files = outbox / FILES
        self._require_mounted = require_mounted

    @contextmanager
    def locked(self, *, wait: bool) -> Iterator[None]:
        """Have them for this process alone: `styled gallery` may run beside the daemon.

        Raises:
            ResourceUnavailable: another process has them, and may for long; or the outbox is
                full, read-only or gone.
        """
        path = self._folder() / ".lock"
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with resource_errors(path):
            descriptor = os.open(path, flags, 0o644)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _not_ours(path)
                give_to_owner_of(path.parent, descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else _AT_ONCE)
                except BlockingIOError:
                    raise ResourceUnavailable(
                        f"{self.page} is being made anew by another process",
                        "work goes on by itself once that is done",
                    ) from None
                yield
            finally:
                os.close(descriptor)

    # The page

    def read_html(self) -> bytes | None:
        """Return the page, None if there is none.

        Raises:
            ResourceUnavailable: somebody else's file has its name.
        """
        data = read_regular(self.page)
        if data is None and not os.path.lexists(self.page):
            return None
        if data is None or _OURS not in data:
            raise _not_ours(self.page)
        return data

    def write_html(self, data: bytes) -> None:
        """Replace the page.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        self._require_mounted(self._outbox)
        atomic_write(self.page, data)

    def identity(self) -> tuple[int, int] | None:
        """Return what differs once somebody has written the page anew."""
        try:
            facts = self.page.lstat()
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns

    # Data pages

    def read_page(self, number: int) -> list[Record] | None:
        """Return the records of a data page, None if there is none that can be read."""
        if not os.path.lexists(self._files / "pages"):
            with suppress(OSError):  # a process died while it replaced them
                (self._files / "pages.new").rename(self._files / "pages")
        data = read_regular(self._files / "pages" / f"{number:06}.js")
        try:
            return None if data is None else list(records_in(data))
        except ValueError:
            return None

    def write_page(self, number: int, records: Sequence[Record], folder: str = "pages") -> None:
        """Write a data page.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        atomic_write(self._folder(folder) / f"{number:06}.js", page_file(number, records))

    def clear_new_pages(self) -> None:
        """Begin with data pages that are to replace all others; write them to `pages.new`."""
        shutil.rmtree(self._folder("pages.new"), ignore_errors=True)
        self._folder("pages.new")

    def replace_pages(self) -> None:
        """Have the new data pages in place of the others.

        Raises:
            ResourceUnavailable: the outbox is read-only or gone.
        """
        old, new = self._folder("pages"), self._folder("pages.new")
        with resource_errors(old):
            shutil.rmtree(old)
            new.rename(old)

    # Small pictures

    def thumb(self, job_id: str, which: str) -> Path:
        """Return where a small picture is, `before` or `after`."""
        return self._files / "thumbs" / job_id[:2] / f"{job_id}-{which}.webp"

    def has(self, thumb: Path) -> bool:
        """Tell whether there is a small picture."""
        return thumb.is_file() and not thumb.is_symlink()

    def write_thumb(self, thumb: Path, data: bytes) -> None:
        """Write a small picture.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        atomic_write(self._folder("thumbs", thumb.parent.name) / thumb.name, data)

    def forget_thumbs(self, keep: set[str], before: float) -> None:
        """Delete the small pictures of all jobs but those with the ids in `keep`.

        What was written after `before`, Unix time, belongs to a result that is being published.
        """
        for folder in _folders_in(self._folder("thumbs")):
            for path in folder.iterdir():
                match = _SMALL_PICTURE.fullmatch(path.name)
                with suppress(FileNotFoundError):
                    if match and match[1] not in keep and path.lstat().st_mtime < before:
                        path.unlink()

    # All of them

    def give_to(self, uid: int, gid: int) -> None:
        """Have all files of the gallery belong to somebody: to the daemon's user, say.

        Raises:
            OSError: it is not for this process to decide.
        """
        os.chown(self.page, uid, gid, follow_symlinks=False)
        for folder, folders, names in os.walk(self._files):
            for name in (".", *folders, *names):
                os.chown(Path(folder, name), uid, gid, follow_symlinks=False)

    def _folder(self, *names: str) -> Path:
        """Make a folder of the gallery, and be sure that it is one and no link.

        Raises:
            ResourceUnavailable: it is not, or can't be made.
        """
        self._require_mounted(self._outbox)
        folder = self._files
        for name in ("", *names):
            folder = folder / name
            if os.path.islink(folder):
                raise _not_ours(folder)
        make_folder(folder)
        return folder


_AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB


def read_regular(path: Path) -> bytes | None:
    """Return the bytes of a regular file, None where there is none or it is too large."""
    try:
        return photos.read_bytes(path, limit_bytes=_LARGEST_BYTES)
    except (FileNotFoundError, InputRejected, ResourceUnavailable):
        return None


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


def _not_ours(path: Path) -> ResourceUnavailable:
    return ResourceUnavailable(
        f"{path} was not made by styled, and is left alone",
        "move it away, or set `output.gallery` to false",
    )
