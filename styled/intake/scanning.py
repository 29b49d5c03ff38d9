"""What lies in the inbox right now: one look at the whole tree, trusting nothing in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from styled.config.ignore import IgnoreRules
from styled.errors import ResourceUnavailable
from styled.files import readable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file in the inbox.

    Attributes:
        path: Relative to the inbox, with `/`; bytes that are not UTF-8 as surrogate escapes.
        size: In bytes.
        mtime_ns: When it was last written, in nanoseconds since the epoch.
        inode: Its number in the file system: another file under the same name has another.
        control_file: The name of a file beside it by which a download manager says that it is
            unfinished.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int
    control_file: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """What can't be looked at in the inbox.

    Attributes:
        path: Relative to the inbox.
        reason: Why, such as the system's words.
    """

    path: str
    reason: str


@dataclass(slots=True)
class ScanNotes:
    """What a scan comes across beside files.

    Attributes:
        folders: Names of the folders in the inbox itself.
        skipped: What can't be looked into.
    """

    folders: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


CONTROL_SUFFIXES = (".aria2", ".st", ".lftp-pget-status")
"""Files that aria2, axel and lftp keep beside what they download, and delete at its end."""

PLACEHOLDER_SUFFIXES = (".part", ".partial", ".crdownload", ".opdownload", ".download", ".crswap")
"""Files that browsers write to while an empty one holds the final name."""

DEEPEST_FOLDER = 100
"""Folders nested more deeply are passed over: nobody sorts photos like that."""


def scan(inbox: Path, ignore: IgnoreRules, notes: ScanNotes | None = None) -> Iterator[Found]:
    """Yield every regular file below `inbox`.

    The files of a folder come in the order of their names, and before those of the folders
    in it. Symbolic links, pipes, sockets and devices are neither followed nor opened. What
    vanishes during the look, or can't be looked into, is passed over until the next one; the
    latter is noted.

    Raises:
        ResourceUnavailable: the inbox itself is gone or can't be read.
    """
    # Folders wait by name, and each is read to its end before the next is opened: there may
    # be more of them than a process may have open at once.
    notes = ScanNotes() if notes is None else notes
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
            _pass_over(folder, error, notes.skipped)
            continue
        folders = []
        control_files = _ControlFiles(entry.name for entry in entries)
        for entry in entries:
            if ignore.match(entry.name):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError as error:
                _pass_over(path, error, notes.skipped)
                continue
            if stat.S_ISDIR(facts.st_mode):
                if not folder:
                    notes.folders.append(entry.name)
                if path.count("/") < DEEPEST_FOLDER:
                    folders.append(path)
                else:
                    _skip(Skipped(path, "nested too deeply"), notes.skipped)
            elif stat.S_ISREG(facts.st_mode):
                control_file = control_files.of(entry.name, facts.st_size)
                yield Found(path, facts.st_size, facts.st_mtime_ns, facts.st_ino, control_file)
        pending.extend(reversed(folders))


class _ControlFiles:
    """The files of one folder that say of others that they are unfinished."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_file: dict[str, str] = {}
        self._placeholders: list[str] = []
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix in CONTROL_SUFFIXES:
                self._by_file[stem] = name
            elif suffix in PLACEHOLDER_SUFFIXES:
                self._placeholders.append(name)

    def of(self, name: str, size: int) -> str | None:
        """Return the name of the control file of a file, if it has one."""
        if size == 0 and self._placeholders:
            # Firefox writes to photo.Xq3b.jpg.part while photo.jpg is empty.
            stem = os.path.splitext(name)[0]
            return next((one for one in self._placeholders if one.startswith(f"{stem}.")), None)
        return self._by_file.get(name)


def _pass_over(path: str, error: OSError, skipped: list[Skipped]) -> None:
    if not isinstance(error, FileNotFoundError):
        _skip(Skipped(path, error.strerror or "unknown error"), skipped)


def _skip(one: Skipped, skipped: list[Skipped]) -> None:
    log.warning("folder.skipped", path=readable(one.path), reason=one.reason)
    skipped.append(one)
