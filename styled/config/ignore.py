"""Names of files and folders that are left alone."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from styled.files import TEMPORARY_PREFIX

DEFAULT_IGNORE = (
    # hidden files, and those that systems and programs leave behind
    ".*",
    ".DS_Store",
    "._*",
    ".~lock.*",
    "*~",
    "~$*",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    # files that are still on their way: browsers, file transfer, rsync, Syncthing
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
    # the same of download managers, and what they keep beside such a file: aria2, axel, torrents
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
    # folders that a network drive keeps for itself: thumbnails, recycle bins, snapshots
    "@eaDir",
    "#recycle",
    "#snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)

_OWN_TEMPORARY_FILES = f"{TEMPORARY_PREFIX}*"


class IgnoreRules:
    """Glob patterns for names that are nobody's photo, such as unfinished uploads."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile the patterns; a name matches if any of them does, whatever its case.

        Our own unfinished files are nobody's photos whatever the patterns say.
        """
        self._patterns = (*patterns, _OWN_TEMPORARY_FILES)
        alternatives = [fnmatch.translate(pattern) for pattern in self._patterns]
        self._compiled = re.compile("|".join(alternatives), re.IGNORECASE)

    def match(self, name: str) -> bool:
        """Tell whether a file or folder of this name is to be left alone."""
        return self._compiled.match(name) is not None

    def pattern_of(self, name: str) -> str | None:
        """Return the first pattern that a name matches, None where it matches none."""
        for pattern in self._patterns:
            if re.match(fnmatch.translate(pattern), name, re.IGNORECASE):
                return pattern
        return None
