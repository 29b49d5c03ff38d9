"""Prevents moving a file that another program is writing."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from styled.errors import InputStuck
from styled.open_files import WriterCheck, Writers

MOUNTS_SECONDS = 5.0
"""How long the list of local file systems is cached."""


class WriterGuard:
    """Prevents moving a file that a program on this machine still has open for writing."""

    def __init__(self, grace_seconds: float) -> None:
        """Wait for a writer for at most `grace_seconds` after the file's last change."""
        self._grace_seconds = grace_seconds
        self._check = WriterCheck()
        self._mounts_read_at = -math.inf

    def require_closed(self, source: Path) -> None:
        """Check that no program on this machine has the file open for writing.

        Raises:
            InputStuck: a program has, and the grace period has not ended.
        """
        now = time.monotonic()
        if now - self._mounts_read_at > MOUNTS_SECONDS:
            self._mounts_read_at = now
            self._check.forget_mounts()
        if self._check.writers(source) is not Writers.SOME:
            return
        try:
            changed_at = os.lstat(source).st_ctime
        except OSError:
            return
        if time.time() - changed_at < self._grace_seconds:
            raise InputStuck(
                f"{source} is still open for writing",
                "it leaves the inbox once the program that writes to it has closed it "
                "(lsof or fuser -v names that program)",
            )
