"""Scans the inbox tree once for regular files; links, pipes and devices are never opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from styled.config.ignore import IgnoreRules
from styled.errors import ResourceUnavailable
from styled.files import COMPANION_SUFFIXES, is_companion_name, readable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file in the inbox.

    Attributes:
        path: Relative to the inbox, with `/`; bytes that are not UTF-8 as surrogate escapes.
        size: In bytes.
        mtime_ns: Modification time in nanoseconds since the epoch.
        inode: Detects that another file has taken the same name.
        control_file: Name of a file beside it by which a download manager marks it as incomplete.
        companions: Its settings and its mask, if they lie beside it; they have none themselves.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int
    control_file: str | None = None
    companions: tuple[FoundFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder in the inbox that a scan leaves out, for instance because it can't be read.

    Attributes:
        path: Relative to the inbox.
        reason: A clause whose subject is the path: "is nested too deeply".
        remedy: What can be done about it.
    """

    path: str
    reason: str
    remedy: str


@dataclass(slots=True)
class ScanNotes:
    """What a scan collects besides files.

    Attributes:
        folders: Names of the top-level folders of the inbox.
        skipped: Files and folders that were left out.
        orphans: Number of masks and other files that belong to photos which are not there.
    """

    folders: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    orphans: int = 0


CONTROL_SUFFIXES = (".aria2", ".st", ".lftp-pget-status")
"""Files that aria2, axel and lftp keep beside a download and delete when it is complete."""

PLACEHOLDER_SUFFIXES = (".part", ".partial", ".crdownload", ".opdownload", ".download", ".crswap")
"""Files that browsers write to while an empty file has the final name."""

IGNORE_MARKER = ".nomedia"
"""A sub-folder that holds a file of this name is left alone, as photo libraries do."""

MAX_FOLDER_DEPTH = 100
"""Folders nested more deeply are skipped."""


def scan(inbox: Path, ignore: IgnoreRules, notes: ScanNotes | None = None) -> Iterator[FoundFile]:
    """Yield every regular file below `inbox`.

    The files of a folder are sorted by name and come before those of its sub-folders. Symbolic
    links, pipes, sockets and devices are neither followed nor opened. Sub-folders that hold a file
    `.nomedia` are left out, with all that is below them. Whatever vanishes during
    the scan is skipped silently; whatever can't be read is skipped, logged and added to `notes`.

    Raises:
        ResourceUnavailable: the inbox itself is gone or can't be read.
    """
    # Each folder is listed completely before the next is opened, and pending ones are kept as
    # names: the tree may have more folders than a process may have open at once.
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
                    "mount it, make it again or fix its permissions",
                ) from error
            _skip_error(folder, error, notes.skipped)
            continue
        if folder and any(entry.name == IGNORE_MARKER for entry in entries):
            continue
        folders = []
        control_files = _ControlFiles(entry.name for entry in entries)
        by_name = {
            entry.name: entry
            for entry in entries
            if is_companion_name(entry.name) and not entry.is_dir(follow_symlinks=False)
        }
        _record_companions(folder, by_name, {entry.name for entry in entries}, notes)
        for entry in entries:
            if ignore.match(entry.name) or entry.name in by_name:
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError as error:
                _skip_error(path, error, notes.skipped)
                continue
            if stat.S_ISDIR(info.st_mode):
                if not folder:
                    notes.folders.append(entry.name)
                if path.count("/") < MAX_FOLDER_DEPTH:
                    folders.append(path)
                else:
                    skipped = Skipped(path, "is nested too deeply", "move it to a higher folder")
                    _skip(skipped, notes.skipped)
            elif stat.S_ISREG(info.st_mode):
                control_file = control_files.of(entry.name, info.st_size)
                companions = tuple(_companions(path, entry.name, by_name))
                yield FoundFile(
                    path, info.st_size, info.st_mtime_ns, info.st_ino, control_file, companions
                )
        pending.extend(reversed(folders))


def _record_companions(
    folder: str, by_name: Mapping[str, os.DirEntry[str]], names: Container[str], notes: ScanNotes
) -> None:
    """Count files that belong to photos which are not there, and report those of no use."""
    for name, entry in by_name.items():
        path = f"{folder}/{name}" if folder else name
        suffix = next((one for one in COMPANION_SUFFIXES if name.endswith(one)), None)
        if not entry.is_file(follow_symlinks=False):
            _skip(
                Skipped(path, "is not a regular file", "replace it by a copy of the file"),
                notes.skipped,
            )
        elif suffix is None:
            _skip(
                Skipped(path, "has a suffix in capital letters", "write it in small letters"),
                notes.skipped,
            )
        elif name.removesuffix(suffix) not in names:
            notes.orphans += 1


def _companions(
    path: str, name: str, by_name: Mapping[str, os.DirEntry[str]]
) -> Iterator[FoundFile]:
    """Yield the regular files that belong to a photo."""
    for suffix in COMPANION_SUFFIXES:
        entry = by_name.get(name + suffix)
        if entry is None:
            continue
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISREG(info.st_mode):
            yield FoundFile(path + suffix, info.st_size, info.st_mtime_ns, info.st_ino)


class _ControlFiles:
    """The files of one folder that mark other files in it as incomplete."""

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
        """Return the name of the control file of a file, None if it has none."""
        if size == 0 and self._placeholders:
            # Firefox writes to photo.Xq3b.jpg.part while photo.jpg is empty.
            stem = os.path.splitext(name)[0]
            return next((one for one in self._placeholders if one.startswith(f"{stem}.")), None)
        return self._by_file.get(name)


def _skip_error(path: str, error: OSError, skipped: list[Skipped]) -> None:
    if not isinstance(error, FileNotFoundError):
        reason = f"can't be read: {error.strerror or 'unknown error'}"
        remedy = "give styled's user permission to read it (a folder: chmod a+rx)"
        _skip(Skipped(path, reason, remedy), skipped)


def _skip(one: Skipped, skipped: list[Skipped]) -> None:
    log.warning("path.skipped", path=readable(one.path), reason=one.reason)
    skipped.append(one)
