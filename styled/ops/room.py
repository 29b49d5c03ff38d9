"""Room on disks, asked for without waiting: a network drive may hang for ever."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("inbox", "outbox", "rejected", "archive", "state")
"""Those of the configuration."""

WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Of the disk that a folder is on; sizes in bytes.

    Attributes:
        disk: Its number.
    """

    disk: int
    free: int
    total: int


class Room:
    """Asks for the room on the disks of some folders, each in a thread of its own."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """Ask about `folders`, by their names."""
        self._folders = folders
        self._found: dict[str, Usage] = {}
        self._asking: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def look(self) -> dict[str, Usage]:
        """Return what is known after a little while; a folder whose disk hangs is left out."""
        with self._lock:
            for name, folder in self._folders.items():
                if name not in self._asking:
                    self._found.pop(name, None)
                    thread = threading.Thread(target=self._ask, args=(name, folder), daemon=True)
                    self._asking[name] = thread
                    thread.start()
            for name, thread in list(self._asking.items()):
                thread.join(WAIT_SECONDS)
                if not thread.is_alive():
                    del self._asking[name]
            return {name: self._found[name] for name in self._folders if name in self._found}

    def _ask(self, name: str, folder: Path) -> None:
        with suppress(OSError):
            disk, usage = os.stat(folder).st_dev, shutil.disk_usage(folder)
            self._found[name] = Usage(disk, usage.free, usage.total)
