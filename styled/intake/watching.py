"""A watchdog observer that says when to look: its events are hints and nothing more."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from watchdog.events import (
    EVENT_TYPE_CLOSED,
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_CREATED,
    EVENT_TYPE_DELETED,
    EVENT_TYPE_MODIFIED,
    EVENT_TYPE_MOVED,
    EVENT_TYPE_OPENED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from styled.files import readable

log = structlog.get_logger()

NEW_FOLDER_SECONDS = 0.2
"""So soon watchdog watches a folder that has just been made."""

FDINFO = "/proc/self/fdinfo"
_WATCHED_INODE = re.compile(rb"^inotify wd:\S+ ino:([0-9a-f]+) ", re.MULTILINE)

# Our own reading causes these; reacting would make every look cause the next.
_OF_READING = frozenset({EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE})

_OF_CHANGING = frozenset(
    {EVENT_TYPE_CREATED, EVENT_TYPE_MODIFIED, EVENT_TYPE_MOVED, EVENT_TYPE_DELETED}
)


class Watcher:
    """Watches one folder tree and calls `on_change` when something happened in it.

    Attributes:
        closed_files: Paths below the folder of files that were closed by a writer and not
            modified since, as far as events tell; others may have been as well.
    """

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        """Watch `folder` once started; `on_change` must return at once and never raise."""
        self._folder = folder
        self._on_change = on_change
        self._observer: BaseObserver | None = None
        self._hints: _Hints | None = None
        self._watched: tuple[int, int] | None = None
        self.closed_files: set[str] = set()

    def ensure(self, *, thoroughly: bool = False) -> str | None:
        """Watch, if that is not already so, and the folder that is there now.

        Args:
            thoroughly: Ask the kernel as well. It drops its watches without a word when a
                disk is unmounted, and once that is mounted again all looks as it was. And
                watchdog says nothing where the limit is reached amid a tree.

        Returns:
            None while watching, otherwise why that is not possible. A folder that was
            deleted and made again, or mounted over, is watched anew: the kernel goes on
            watching the old one, without a word.
        """
        try:
            facts = os.stat(self._folder)
        except OSError as error:
            self.stop()
            return f"{self._folder} can't be watched: {error.strerror}"
        present = facts.st_dev, facts.st_ino
        # The kernel is told not to follow links, not even the inbox itself if it is one.
        folder = os.path.realpath(self._folder)
        if (
            self._is_watching()
            and self._watched == present
            and not (thoroughly and _left_unwatched(folder))
        ):
            return None
        self.stop()
        hints = _Hints(folder, self._on_change, self.closed_files)
        observer: BaseObserver | None = None
        try:
            observer = Observer()
            observer.schedule(hints, folder, recursive=True)
            observer.start()
        except (OSError, RuntimeError) as error:
            # For instance the inotify limit of the user is reached, or that of threads, or
            # folders are nested more deeply than watchdog can follow.
            if observer is not None:
                observer.stop()  # or each attempt would use up one more of the few there are
            reason = (isinstance(error, OSError) and error.strerror) or error
            return f"{self._folder} can't be watched: {reason}"
        self._observer, self._hints, self._watched = observer, hints, present
        if (unwatched := _left_unwatched(folder)) is not None:
            self.stop()
            return (
                f"{readable(unwatched)} can't be watched: the limit of inotify watches may be "
                "reached (raise fs.inotify.max_user_watches)"
            )
        log.debug("inbox.watched", folder=str(self._folder))
        return None

    def stop(self) -> None:
        """Stop watching and join the threads."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()  # its helpers may live on even where it is dead itself
            observer.join()
        self.closed_files.clear()  # from now on nobody says what is modified

    def _is_watching(self) -> bool:
        return (
            self._observer is not None
            and self._observer.is_alive()
            and all(emitter.is_alive() for emitter in self._observer.emitters)
            and self._hints is not None
            and not self._hints.folder_is_gone
        )


def _left_unwatched(top: str) -> str | None:
    """Return a folder in the tree that the kernel goes on not watching, None if there is none."""
    first = _unwatched_folder(top)
    if first is None:
        return None
    threading.Event().wait(NEW_FOLDER_SECONDS)
    return first if _unwatched_folder(top) == first else None


def _unwatched_folder(top: str) -> str | None:
    """Return a folder in the tree that the kernel does not watch, None where it watches all.

    Links are not followed, and what can't be read is nobody's inbox.
    """
    watched = _watched_inodes()
    if watched is None:
        return None
    pending = [top]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as listing:
                folders = [entry.path for entry in listing if entry.is_dir(follow_symlinks=False)]
            inode = os.stat(folder).st_ino
        except OSError:
            continue
        if inode not in watched:
            return folder
        pending.extend(folders)
    return None


def _watched_inodes() -> set[int] | None:
    """Return the inodes that this process has inotify watches on, None where nobody tells."""
    try:
        descriptors = os.listdir(FDINFO)
    except OSError:
        return None
    watched: set[int] = set()
    for descriptor in descriptors:
        with suppress(OSError), open(f"{FDINFO}/{descriptor}", "rb") as file:
            watched.update(int(found, 16) for found in _WATCHED_INODE.findall(file.read()))
    return watched


class _Hints(FileSystemEventHandler):
    def __init__(self, folder: str, on_change: Callable[[], None], closed_files: set[str]) -> None:
        self._folder = folder
        self._on_change = on_change
        self._closed_files = closed_files
        self.folder_is_gone = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        # A folder that is made again at once may have the same number in the file system.
        if event.event_type == EVENT_TYPE_DELETED and event.src_path == self._folder:
            self.folder_is_gone = True
        path = self._relative(event.src_path)
        if event.event_type == EVENT_TYPE_CLOSED:
            self._closed_files.add(path)
        elif event.event_type in _OF_CHANGING:
            self._closed_files.discard(path)
            if event.event_type == EVENT_TYPE_MOVED:
                self._closed_files.discard(self._relative(event.dest_path))
        if event.event_type not in _OF_READING:
            self._on_change()

    def _relative(self, path: str | bytes) -> str:
        return os.fsdecode(path).removeprefix(f"{self._folder}{os.sep}")
