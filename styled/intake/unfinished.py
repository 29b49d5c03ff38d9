"""Signs that a file is still on its way, although nothing has changed for a while.

Each sign delays a file for as long as its grace, counted from the last change of the file; none
rejects it. After that the decoder judges what is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from styled.intake.scanning import Found
from styled.open_files import WriterCheck, Writers, open_regular
from styled.photos.containers import (
    Bytes,
    could_become_picture,
    format_of,
    is_cut,
    view_of,
)
from styled.photos.opening import DEFAULT_LIMIT_BYTES

log = structlog.get_logger()

HEAD_BYTES = 16
"""No picture format begins with so many zeros."""

TAIL_BYTES = 1024
"""So many zeros at the end of a file look like space that was reserved and not yet written."""

SAMPLES, SAMPLE_BYTES = 32, 512
"""Pieces of a file that are looked at for zeros, evenly spaced."""

BLOCK_BYTES = 512
"""The unit of `st_blocks`, on every file system."""

HOLE_BYTES = 8192
"""Fewer bytes without blocks are rounding, or small files that lie in their inode."""

_ENDS_IN_A_MARKER = frozenset({"jpeg", "png", "gif"})
_COMPRESSED = frozenset({"jpeg", "png", "gif", "webp", "avif", "heic"})


@dataclass(frozen=True, slots=True)
class Sign:
    """Why a file is taken to be unfinished.

    Attributes:
        reason: In one sentence, beginning with a verb: "is empty".
        grace_seconds: How long after the file's last change it counts; None: as long as it shows.
        is_of_content: Whether it can't go unless the file changes.
    """

    reason: str
    grace_seconds: float | None
    is_of_content: bool = False


class ClosedFiles(Protocol):
    """The files of which the system has reported that their last writer has closed them."""

    def __contains__(self, path: object) -> bool:
        """Tell it of a path relative to the inbox."""


class UnfinishedCheck:
    """Looks for signs that a settled file is unfinished."""

    def __init__(
        self,
        inbox: Path,
        writer_check: WriterCheck,
        *,
        closed_files: ClosedFiles,
        truncated_grace_seconds: float,
        open_grace_seconds: float,
    ) -> None:
        """Look at files in `inbox`."""
        self._inbox = inbox
        self._writer_check = writer_check
        self._closed_files = closed_files
        self._truncated_grace = truncated_grace_seconds
        self._open_grace = open_grace_seconds

    def sign_of(self, file: Found, waited_seconds: float) -> Sign | None:
        """Return the first sign that still counts, None where the file can be taken.

        Args:
            file: Has not changed for `settle_seconds`.
            waited_seconds: Since its last change.
        """
        for sign in self._signs(file):
            if sign.grace_seconds is None or waited_seconds < sign.grace_seconds:
                return sign
        return None

    def _signs(self, file: Found) -> Iterator[Sign]:
        if file.control_file is not None:
            yield Sign(f"waits for {file.control_file} beside it to go: a download goes on", None)
        path = self._inbox / file.path
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            return  # it is gone, or no file any more
        except BlockingIOError:
            yield Sign(_OPEN, self._open_grace)
            return
        except OSError as error:
            # Programs that copy permissions keep a file to themselves until its end.
            yield Sign(f"can't be read: {error.strerror}", self._truncated_grace)
            return
        try:
            writers = self._writer_check.writers_of(descriptor, path)
            if writers is Writers.SOME:
                yield Sign(_OPEN, self._open_grace)
            is_known_to_be_closed = writers is Writers.NONE or file.path in self._closed_files
            reason = _sign_in(descriptor, suspicious=not is_known_to_be_closed)
            if reason is not None:
                yield Sign(reason, self._truncated_grace, is_of_content=True)
        finally:
            os.close(descriptor)


_OPEN = "is still open for writing"


def _sign_in(descriptor: int, *, suspicious: bool) -> str | None:
    """Return what in a file makes it look unfinished, None where nothing does.

    Args:
        descriptor: Of the file.
        suspicious: Whether to look for what may be in whole pictures as well.
    """
    try:
        found = os.fstat(descriptor)
        if found.st_size > DEFAULT_LIMIT_BYTES:
            return None  # its job refuses it
        reason = _missing(view_of(descriptor, found.st_size))
        if reason is None and suspicious:
            reason = _suspicion(descriptor, found)
        return reason
    # One file, whatever is in it, must not keep all others from being looked at: a failing disk,
    # numbers that no memory holds. Its job will say what is wrong.
    except Exception:
        log.exception("input.not_checked")
        return None


def _missing(view: Bytes) -> str | None:
    """Return what a file lacks that every picture has, None where nothing is missing."""
    if len(view) == 0:
        return "is empty"
    head = view[:HEAD_BYTES]
    if len(view) >= HEAD_BYTES and not any(head):
        return "begins with zeros: its content has not come yet"
    name = format_of(view)
    if name is None:
        return "ends too early" if could_become_picture(head) else None
    return "ends too early: part of the picture is missing" if is_cut(view, name) else None


def _suspicion(descriptor: int, found: os.stat_result) -> str | None:
    """Return what makes a file look unfinished that may as well be whole.

    Compressing file systems have holes, and black borders are zeros.
    """
    size = found.st_size
    if found.st_blocks * BLOCK_BYTES + HOLE_BYTES < size:
        return "has holes: part of it may not have come yet"
    name = format_of(view_of(descriptor, size))
    has_end_marker = name in _ENDS_IN_A_MARKER
    if not has_end_marker and not any(os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))):
        return "ends in zeros: part of it may not have come yet"
    if name in _COMPRESSED and size > SAMPLES * SAMPLE_BYTES:
        step = size // SAMPLES
        for start in range(step, size - SAMPLE_BYTES, step):
            if not any(os.pread(descriptor, SAMPLE_BYTES, start)):
                return "has zeros where a compressed picture has none: part of it may be missing"
    return None
