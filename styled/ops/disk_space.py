"""Free disk space, queried with a time limit: a network drive may hang for ever."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("inbox", "outbox", "rejected", "archive", "state")
"""The folders in the configuration."""

WAIT_SECONDS = 2.0
"""How long to wait for each folder's disk."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage of the disk that a folder is on.

    Attributes:
        disk: Its device number (`st_dev`).
        free: Bytes.
        total: Bytes.
    """

    disk: int
    free: int
    total: int


class DiskSpace:
    """Queries the disk usage of some folders, each in a thread of its own."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """Query `folders`: name -> path."""
        self._folders = folders
        self._results: dict[str, Usage] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def usage(self) -> dict[str, Usage]:
        """Return folder name -> usage; folders whose disk does not answer in time are omitted."""
        with self._lock:
            for name, folder in self._folders.items():
                if name not in self._threads:
                    self._results.pop(name, None)
                    thread = threading.Thread(target=self._query, args=(name, folder), daemon=True)
                    self._threads[name] = thread
                    thread.start()
            for name, thread in list(self._threads.items()):
                thread.join(WAIT_SECONDS)
                if not thread.is_alive():
                    del self._threads[name]
            return {name: self._results[name] for name in self._folders if name in self._results}

    def _query(self, name: str, folder: Path) -> None:
        with suppress(OSError):
            device, usage = os.stat(folder).st_dev, shutil.disk_usage(folder)
            self._results[name] = Usage(device, usage.free, usage.total)
