"""Patterns for names of files and folders that the intake ignores."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from styled.files import TEMPORARY_PREFIX

DEFAULT_IGNORE = (
    # hidden files, and files that operating systems and programs leave behind
    ".*",
    ".DS_Store",
    "._*",
    ".~lock.*",
    "*~",
    "~$*",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    # incomplete transfers: browsers, file transfer programs, rsync, Syncthing
    "*.part",
    "*.partial",
    "*.filepart",
    "*.crdownload",
    "*.download",
    "*.tmp",
    "*.temp",
    "*.!sync",
    ".syncthing.*",
    "~syncthing~*",
    "*.opdownload",
    "*.crswap",
    "*.tacitpart",
    "*.gstmp",
    "*.incomplete",
    "*.unfinished",
    "*.downloading",
    # incomplete files and control files of download managers: aria2, axel, torrents
    "*.aria2",
    "*.aria2__temp",
    "*.st",
    "*.lftp-pget-status",
    "*.!qB",
    "*.!ut",
    "*.!bt",
    "*.bc!",
    "*.jc!",
    "*.xltd",
    # internal folders of network drives: thumbnails, recycle bins, snapshots
    "@eaDir",
    "#recycle",
    "#snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)

_OWN_TEMPORARY_FILES = f"{TEMPORARY_PREFIX}*"


class IgnoreRules:
    """Glob patterns for names of files that are not photos, such as incomplete uploads."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile the patterns; a name is ignored if any of them matches, case-insensitively.

        styled's own temporary files are always ignored.
        """
        self._patterns = (*patterns, _OWN_TEMPORARY_FILES)
        alternatives = [fnmatch.translate(pattern) for pattern in self._patterns]
        self._compiled = re.compile("|".join(alternatives), re.IGNORECASE)

    def match(self, name: str) -> bool:
        """Return whether a file or folder of this name is ignored."""
        return self._compiled.match(name) is not None

    def pattern_of(self, name: str) -> str | None:
        """Return the first pattern that matches the name, or None."""
        for pattern in self._patterns:
            if re.match(fnmatch.translate(pattern), name, re.IGNORECASE):
                return pattern
        return None
