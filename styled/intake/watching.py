"""A watchdog observer that says when to look: its events are hints and nothing more."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import structlog
from watchdog.events import (
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_OPENED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

log = structlog.get_logger()

# Our own reading causes these; reacting would make every look cause the next.
_OF_READING = frozenset({EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE})


class Watcher:
    """Watches one folder tree and calls `on_change` when something happened in it."""

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        """Watch `folder` once started; `on_change` must return at once and never raise."""
        self._folder = folder
        self._handler = _Hints(on_change)
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None

    def ensure(self) -> str | None:
        """Watch, if that is not already so, and the folder that is there now.

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
        if self._observer is not None and self._observer.is_alive() and self._watched == present:
            return None
        self.stop()
        observer = Observer()
        try:
            observer.schedule(self._handler, str(self._folder), recursive=True)
            observer.start()
        except OSError as error:
            # For instance the inotify limit of the user is reached.
            return f"{self._folder} can't be watched: {error.strerror or error}"
        self._observer, self._watched = observer, present
        log.debug("inbox.watched", folder=str(self._folder))
        return None

    def stop(self) -> None:
        """Stop watching and join the threads."""
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join()


class _Hints(FileSystemEventHandler):
    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _OF_READING:
            self._on_change()
