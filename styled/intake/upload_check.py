"""Detects files that are incomplete although they have not changed for a while.

Evidence delays a file for a grace period, counted from its last change. It never rejects the file:
after the grace period the decoder decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog

from styled.files import readable
from styled.intake.scanning import FoundFile
from styled.open_files import WriterCheck, Writers, open_regular
from styled.photos.completeness import is_truncated
from styled.photos.file_view import ByteSource, view_of
from styled.photos.files import DEFAULT_LIMIT_BYTES
from styled.photos.formats import could_become_picture, format_of

log = structlog.get_logger()

HEAD_BYTES = 16
"""No picture format begins with this many zero bytes."""

TAIL_BYTES = 1024
"""A file that ends in this many zero bytes may have been preallocated and not yet written."""

SAMPLES, SAMPLE_BYTES = 32, 512
"""Evenly spaced blocks of a file that are checked for being all zeros."""

BLOCK_BYTES = 512
"""The unit of `st_blocks`, on every file system."""

HOLE_BYTES = 8192
"""A smaller difference between size and blocks is rounding, or a file stored in its inode."""

_FORMATS_WITH_END_MARKER = frozenset({"jpeg", "png", "gif"})
_COMPRESSED_FORMATS = frozenset({"jpeg", "png", "gif", "webp", "avif", "heic"})


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a file looks incomplete.

    Attributes:
        reason: Begins with a verb: "is empty".
        grace_seconds: For how long after the file's last change it delays the file; None: as long
            as it is present.
        is_of_content: Whether it comes from the file's content, so that it stays until the file
            changes.
    """

    reason: str
    grace_seconds: float | None
    is_of_content: bool = False


class ClosedFiles(Protocol):
    """Files that were closed by their last writer, according to kernel events."""

    def __contains__(self, path: object) -> bool:
        """Return whether this file was closed; `path` is relative to the inbox."""


class UploadCheck:
    """Checks whether a file that has stopped changing is incomplete."""

    def __init__(
        self,
        inbox: Path,
        writer_check: WriterCheck,
        *,
        closed_files: ClosedFiles,
        truncated_grace_seconds: float,
        open_grace_seconds: float,
    ) -> None:
        """Check files in `inbox`.

        Args:
            inbox: The inbox.
            writer_check: Tells whether a file is open for writing.
            closed_files: Files that are known to be closed.
            truncated_grace_seconds: Grace period of incomplete content.
            open_grace_seconds: Grace period of files that are open for writing.
        """
        self._inbox = inbox
        self._writer_check = writer_check
        self._closed_files = closed_files
        self._truncated_grace = truncated_grace_seconds
        self._open_grace = open_grace_seconds

    def evidence_of(self, file: FoundFile, waited_seconds: float) -> Evidence | None:
        """Return the first piece whose grace has not ended, None if the file can be accepted.

        Args:
            file: Has not changed for `settle_seconds`.
            waited_seconds: Time since its last change.
        """
        for one in (file, *file.companions):
            for evidence in self._evidence(one):
                if evidence.grace_seconds is None or waited_seconds < evidence.grace_seconds:
                    if one is not file:
                        name = readable(one.path.rpartition("/")[2])
                        return replace(
                            evidence, reason=f"waits for {name}, which {evidence.reason}"
                        )
                    return evidence
        return None

    def _evidence(self, file: FoundFile) -> Iterator[Evidence]:
        if file.control_file is not None:
            yield Evidence(
                f"waits for {file.control_file} beside it to go: a download goes on", None
            )
        path = self._inbox / file.path
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            return  # it is gone, or no longer a regular file
        except BlockingIOError:
            yield Evidence(_OPEN, self._open_grace)
            return
        except OSError as error:
            # Programs that copy permissions make a file readable only when it is complete.
            yield Evidence(f"can't be read: {error.strerror}", self._truncated_grace)
            return
        try:
            writers = self._writer_check.writers_of(descriptor, path)
            if writers is Writers.SOME:
                yield Evidence(_OPEN, self._open_grace)
            is_known_to_be_closed = writers is Writers.NONE or file.path in self._closed_files
            reason = _content_reason(descriptor, suspicious=not is_known_to_be_closed)
            if reason is not None:
                yield Evidence(reason, self._truncated_grace, is_of_content=True)
        finally:
            os.close(descriptor)


_OPEN = "is still open for writing"


def _content_reason(descriptor: int, *, suspicious: bool) -> str | None:
    """Return why the content looks incomplete, None if it does not.

    Args:
        descriptor: Of the file.
        suspicious: Whether to apply checks that complete pictures may fail as well.
    """
    try:
        stat = os.fstat(descriptor)
        if stat.st_size > DEFAULT_LIMIT_BYTES:
            return None  # its job rejects it
        reason = _missing_content(view_of(descriptor, stat.st_size))
        if reason is None and suspicious:
            reason = _suspicious_content(descriptor, stat)
        return reason
    # No file may stop the scan of the others, for instance by a disk error or by a header with
    # sizes that exceed the memory. Its job will report the problem.
    except Exception:
        log.exception("input.not_checked")
        return None


def _missing_content(view: ByteSource) -> str | None:
    """Return why the content is certainly incomplete, None if it may be complete."""
    if len(view) == 0:
        return "is empty"
    head = view[:HEAD_BYTES]
    if len(view) >= HEAD_BYTES and not any(head):
        return "begins with zeros: its content has not come yet"
    name = format_of(view)
    if name is None:
        return "ends too early" if could_become_picture(head) else None
    return "ends too early: part of the picture is missing" if is_truncated(view, name) else None


def _suspicious_content(descriptor: int, stat: os.stat_result) -> str | None:
    """Return why the content may be incomplete, None if it looks complete.

    Complete files may be reported as well: compressing file systems show holes, and the black
    borders of uncompressed pictures are zeros.
    """
    size = stat.st_size
    if stat.st_blocks * BLOCK_BYTES + HOLE_BYTES < size:
        return "has holes: part of it may not have come yet"
    name = format_of(view_of(descriptor, size))
    has_end_marker = name in _FORMATS_WITH_END_MARKER
    if not has_end_marker and not any(os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))):
        return "ends in zeros: part of it may not have come yet"
    if name in _COMPRESSED_FORMATS and size > SAMPLES * SAMPLE_BYTES:
        step = size // SAMPLES
        for start in range(step, size - SAMPLE_BYTES, step):
            if not any(os.pread(descriptor, SAMPLE_BYTES, start)):
                return "has zeros where a compressed picture has none: part of it may be missing"
    return None
