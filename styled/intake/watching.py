"""Calls back when something changes in a folder tree; events only cause a scan."""

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
"""Within this time watchdog has added a watch for a folder that was just made."""

FDINFO = "/proc/self/fdinfo"
_WATCHED_INODE = re.compile(rb"^inotify wd:\S+ ino:([0-9a-f]+) ", re.MULTILINE)

# Our own reads cause these. Reacting to them would make each scan cause the next.
_READ_EVENTS = frozenset({EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE})

_CHANGE_EVENTS = frozenset(
    {EVENT_TYPE_CREATED, EVENT_TYPE_MODIFIED, EVENT_TYPE_MOVED, EVENT_TYPE_DELETED}
)


class Watcher:
    """Watches one folder tree and calls `on_change` when something has changed in it.

    Attributes:
        closed_files: Files, relative to the folder, that were closed by a writer and not modified
            since, according to the events received. Not complete: events may be lost.
    """

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        """Watch `folder` once started; `on_change` must return at once and never raise."""
        self._folder = folder
        self._on_change = on_change
        self._observer: BaseObserver | None = None
        self._handler: _EventHandler | None = None
        self._watched: tuple[int, int] | None = None
        self.closed_files: set[str] = set()

    def ensure(self, *, check_kernel: bool = False) -> str | None:
        """Start watching, or restart if the path refers to another folder than before.

        A folder that was deleted and made again, or mounted over, is watched anew: the kernel
        silently keeps watching the old one.

        Args:
            check_kernel: Also compare with the watches that the kernel has. It silently drops
                them when a disk is unmounted, and nothing shows that after the disk is mounted
                again. Neither does watchdog report that the limit of watches was reached in the
                middle of a tree.

        Returns:
            None while watching, otherwise why that is not possible.
        """
        try:
            stat = os.stat(self._folder)
        except OSError as error:
            self.stop()
            return f"{self._folder} can't be watched: {error.strerror}"
        current = stat.st_dev, stat.st_ino
        # watchdog's inotify watches do not follow links, not even if the inbox itself is one.
        folder = os.path.realpath(self._folder)
        if (
            self._is_watching()
            and self._watched == current
            and not (check_kernel and _still_unwatched(folder))
        ):
            return None
        self.stop()
        handler = _EventHandler(folder, self._on_change, self.closed_files)
        observer: BaseObserver | None = None
        try:
            observer = Observer()
            observer.schedule(handler, folder, recursive=True)
            observer.start()
        except (OSError, RuntimeError) as error:
            # For instance the user's limit of inotify instances or of threads is reached, or
            # folders are nested too deeply for watchdog.
            if observer is not None:
                observer.stop()  # otherwise each attempt would leak an inotify instance
            reason = (isinstance(error, OSError) and error.strerror) or error
            return f"{self._folder} can't be watched: {reason}"
        self._observer, self._handler, self._watched = observer, handler, current
        if (unwatched := _still_unwatched(folder)) is not None:
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
            observer.stop()  # its emitter threads may be alive even if it is dead itself
            observer.join()
        self.closed_files.clear()  # later modifications are not seen

    def _is_watching(self) -> bool:
        return (
            self._observer is not None
            and self._observer.is_alive()
            and all(emitter.is_alive() for emitter in self._observer.emitters)
            and self._handler is not None
            and not self._handler.folder_is_gone
        )


def _still_unwatched(top: str) -> str | None:
    """Return a folder in the tree that has no watch even a moment later, None if all have one."""
    first = _unwatched_folder(top)
    if first is None:
        return None
    threading.Event().wait(NEW_FOLDER_SECONDS)
    return first if _unwatched_folder(top) == first else None


def _unwatched_folder(top: str) -> str | None:
    """Return a folder in the tree that the kernel does not watch, None if it watches all.

    Links are not followed, and folders that can't be read are skipped. If the watches are
    unknown, the result is None.
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
    """Return the inodes that this process has inotify watches on, None if /proc is missing."""
    try:
        descriptors = os.listdir(FDINFO)
    except OSError:
        return None
    watched: set[int] = set()
    for descriptor in descriptors:
        with suppress(OSError), open(f"{FDINFO}/{descriptor}", "rb") as file:
            watched.update(int(inode, 16) for inode in _WATCHED_INODE.findall(file.read()))
    return watched


class _EventHandler(FileSystemEventHandler):
    def __init__(self, folder: str, on_change: Callable[[], None], closed_files: set[str]) -> None:
        self._folder = folder
        self._on_change = on_change
        self._closed_files = closed_files
        self.folder_is_gone = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        # Comparing inodes is not enough: a folder that is made again may get the same inode.
        if event.event_type == EVENT_TYPE_DELETED and event.src_path == self._folder:
            self.folder_is_gone = True
        path = self._relative(event.src_path)
        if event.event_type == EVENT_TYPE_CLOSED:
            self._closed_files.add(path)
        elif event.event_type in _CHANGE_EVENTS:
            self._closed_files.discard(path)
            if event.event_type == EVENT_TYPE_MOVED:
                self._closed_files.discard(self._relative(event.dest_path))
        if event.event_type not in _READ_EVENTS:
            self._on_change()

    def _relative(self, path: str | bytes) -> str:
        return os.fsdecode(path).removeprefix(f"{self._folder}{os.sep}")
