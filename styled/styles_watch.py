"""Watches the styles folder, and asks for a reload once a change of it has settled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from styled.config.styles_folder import FolderStamp, folder_stamp

log = structlog.get_logger()

POLL_SECONDS = 1.0
"""How often the folder is listed. It has few files, and may be on a drive that sends no events."""


class StylesWatch:
    """Polls the folder in a thread of its own: a drive that hangs stops nothing else."""

    def __init__(self, folder: Path, loaded: FolderStamp, on_change: Callable[[], None]) -> None:
        """Call `on_change` when pictures or settings in `folder` have changed and settled.

        Args:
            folder: The styles folder.
            loaded: Its stamp when the configuration was loaded.
            on_change: Called in the thread.
        """
        self._folder = folder
        self._on_change = on_change
        self._stopping = threading.Event()
        self._loaded = self._latest = loaded
        self._thread = threading.Thread(target=self._run, name="styles-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it is not waited for."""
        self._stopping.set()

    def poll(self) -> None:
        """Scan the folder once. A change is reported when two scans in a row agree."""
        previous, self._latest = self._latest, folder_stamp(self._folder)
        if self._latest == previous and self._latest != self._loaded:
            self._loaded = self._latest
            self._on_change()

    def _run(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            try:
                self.poll()
            # Without this thread, new styles would silently no longer be found.
            except Exception:
                log.exception("styles_watch.internal_error")
