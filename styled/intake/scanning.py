"""What lies in the inbox right now: one look at the whole tree, trusting nothing in it."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from styled.errors import ResourceUnavailable
from styled.files import TEMPORARY_PREFIX, readable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file in the inbox.

    Attributes:
        path: Relative to the inbox, with `/`; bytes that are not UTF-8 as surrogate escapes.
        size: In bytes.
        mtime_ns: When it was last written, in nanoseconds since the epoch.
        inode: Its number in the file system: another file under the same name has another.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int


_UNFINISHED = f"{TEMPORARY_PREFIX}*"

DEEPEST_FOLDER = 100
"""Folders nested more deeply are passed over: nobody sorts photos like that."""


class IgnoreRules:
    """Glob patterns for names that are nobody's photo, such as unfinished uploads."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile the patterns; a name matches if any of them does, whatever its case.

        Our own unfinished files are nobody's photos whatever the patterns say.
        """
        self._patterns = (*patterns, _UNFINISHED)
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


def scan(inbox: Path, ignore: IgnoreRules) -> Iterator[Found]:
    """Yield every regular file below `inbox`.

    The files of a folder come in the order of their names, and before those of the folders
    in it. Symbolic links, pipes, sockets and devices are neither followed nor opened. What
    vanishes during the look, or can't be looked into, is passed over until the next one.

    Raises:
        ResourceUnavailable: the inbox itself is gone or can't be read.
    """
    # Folders wait by name, and each is read to its end before the next is opened: there may
    # be more of them than a process may have open at once.
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(inbox / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise ResourceUnavailable(
                    f"the inbox {inbox} can't be read: {error.strerror}",
                    "mount it, make it again or mend its permissions; work goes on by itself",
                ) from error
            _pass_over(folder, error)
            continue
        folders = []
        for entry in entries:
            if ignore.match(entry.name):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError as error:
                _pass_over(path, error)
                continue
            if stat.S_ISDIR(facts.st_mode):
                if path.count("/") < DEEPEST_FOLDER:
                    folders.append(path)
                else:
                    log.warning("folder.skipped", path=readable(path), reason="nested too deeply")
            elif stat.S_ISREG(facts.st_mode):
                yield Found(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
        pending.extend(reversed(folders))


def _pass_over(path: str, error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        log.warning("folder.skipped", path=readable(path), reason=error.strerror)
