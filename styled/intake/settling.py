"""The settle gate: a file passes once it has stopped changing and its content is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from styled.intake.scanning import FoundFile
from styled.intake.upload_check import Evidence

RECHECK_SECONDS = 2.0
RECHECK_SHARE = 0.1
"""When an incomplete file is checked again if no event arrives: a writer may close it without one.

The interval is this share of the time that the file has been unchanged, and at least
`RECHECK_SECONDS`.
"""


class UploadCheckProtocol(Protocol):
    """Checks the content of files that have stopped changing; see `UploadCheck`."""

    def evidence_of(self, file: FoundFile, waited_seconds: float) -> Evidence | None:
        """Return why the file looks incomplete, None if it can be accepted."""


class PictureCheckProtocol(Protocol):
    """Checks what complete files are; see `styled.intake.picture_check`."""

    def is_picture(self, path: str) -> bool:
        """Return whether a file becomes a job; `path` is relative to the inbox."""


class SubmittedFiles(Protocol):
    """Files that have a job; see `IntakeHost`."""

    def is_submitted(self, path: str, size: int, mtime_ns: int) -> bool:
        """Return whether this file of the inbox was submitted before."""


@dataclass(slots=True)
class _Tracked:
    """The state of one file.

    Attributes:
        file: As the last scan has found it.
        since: When it was first seen in this state.
        evidence: Why it, or its version before the last change, looked incomplete.
        checked_at: When its content was last checked.
        is_accepted: Whether its content was found complete: it is not checked again.
        passed: Whether it has passed the gate.
        is_picture: Whether it becomes a job, as far as is known.
    """

    file: FoundFile
    since: float
    evidence: Evidence | None = None
    checked_at: float | None = None
    is_accepted: bool = False
    passed: bool = False
    is_picture: bool = True


@dataclass(frozen=True, slots=True)
class IncompleteFile:
    """A file that looks incomplete.

    Attributes:
        path: Relative to the inbox.
        reason: Begins with a verb: "is empty".
        until: When it is accepted as it is, in seconds of the gate's clock; None: not before it
            has changed.
    """

    path: str
    reason: str
    until: float | None


class SettleGate:
    """Remembers the state of each file and since when it has had that state.

    Times are those of the scans, on a monotonic clock. Modification times only serve to detect
    changes: other machines set them, and copies may keep the old ones.
    """

    def __init__(
        self,
        settle_seconds: float,
        check: UploadCheckProtocol,
        picture_check: PictureCheckProtocol | None = None,
        submitted: SubmittedFiles | None = None,
    ) -> None:
        """Let a file pass after `settle_seconds` without a change, if `check` agrees.

        Files that are not pictures according to `picture_check` do not pass, and are not waited
        for; without it all files do. Those that were `submitted` before, for instance by an earlier
        process, pass without being read again.
        """
        self._settle_seconds = settle_seconds
        self._check = check
        self._picture_check = picture_check
        self._submitted = submitted
        self._tracked: dict[str, _Tracked] = {}

    def filter_settled(self, found: Iterable[FoundFile], now: float) -> Iterator[FoundFile]:
        """Yield the files that have just settled; each passes once.

        Args:
            found: All files of one scan. When the iterator is exhausted, files that were not in
                it are forgotten.
            now: Monotonic seconds.
        """
        seen: dict[str, _Tracked] = {}
        for file in found:
            tracked = self._tracked.get(file.path)
            if tracked is None or tracked.file != file:
                evidence = None if tracked is None or tracked.is_accepted else tracked.evidence
                tracked = self._tracked[file.path] = _Tracked(file, now, evidence)
            seen[file.path] = tracked
            if not tracked.passed and self._is_due(tracked, now):
                tracked.passed = True
                if tracked.is_picture:
                    yield file
        self._tracked = seen

    def _is_due(self, tracked: _Tracked, now: float) -> bool:
        if now < tracked.since + self._settle_seconds:
            return False
        if not tracked.is_accepted:
            if self._was_just_checked(tracked, now):
                return False
            if self._was_submitted(tracked.file):
                tracked.is_accepted = True
                return True
            tracked.evidence = self._check.evidence_of(tracked.file, now - tracked.since)
            tracked.checked_at = now
            tracked.is_accepted = tracked.evidence is None
            if tracked.is_accepted and self._picture_check is not None:
                tracked.is_picture = self._picture_check.is_picture(tracked.file.path)
        return tracked.is_accepted

    def _was_submitted(self, file: FoundFile) -> bool:
        return self._submitted is not None and self._submitted.is_submitted(
            file.path, file.size, file.mtime_ns
        )

    def _was_just_checked(self, tracked: _Tracked, now: float) -> bool:
        """Return whether the content was checked so recently that it need not be read again."""
        evidence = tracked.evidence
        if evidence is None or tracked.checked_at is None or not evidence.is_of_content:
            return False
        ends = tracked.since + (evidence.grace_seconds or 0.0)
        return now < min(ends, tracked.checked_at + RECHECK_SECONDS)

    def resubmit_all(self) -> None:
        """Let all settled files pass again, for instance because the styles have changed."""
        for tracked in self._tracked.values():
            tracked.passed = False

    def incomplete(self) -> list[IncompleteFile]:
        """Return the files that have stopped changing but look incomplete."""
        return [
            IncompleteFile(
                path,
                tracked.evidence.reason,
                None
                if tracked.evidence.grace_seconds is None
                else tracked.since + tracked.evidence.grace_seconds,
            )
            for path, tracked in self._tracked.items()
            if tracked.evidence is not None and not tracked.is_accepted
        ]

    def not_pictures(self) -> int:
        """Return the number of files that are not pictures."""
        return sum(not tracked.is_picture for tracked in self._tracked.values())

    def next_settled_at(self) -> float | None:
        """Return when the next unchecked file may settle, None if there is none."""
        return min(
            (
                tracked.since + self._settle_seconds
                for tracked in self._not_passed()
                if tracked.checked_at is None
            ),
            default=None,
        )

    def next_check_at(self) -> float | None:
        """Return when the next incomplete file is to be checked again, None if there is none."""
        return min(
            (
                self._next_check_of(tracked.evidence, tracked.since, tracked.checked_at)
                for tracked in self._not_passed()
                if tracked.checked_at is not None and tracked.evidence is not None
            ),
            default=None,
        )

    def may_settle(self) -> bool:
        """Return whether a file still changes, or is delayed by its content (which has a grace)."""
        return any(
            tracked.evidence is None or tracked.evidence.is_of_content
            for tracked in self._not_passed()
        )

    def not_taken(self) -> list[tuple[str, str]]:
        """Return pairs (path, reason) of the files that have not passed."""
        return [
            (tracked.file.path, "has not stopped changing" if evidence is None else evidence.reason)
            for tracked in self._not_passed()
            for evidence in [tracked.evidence]
        ]

    def _not_passed(self) -> Iterator[_Tracked]:
        return (tracked for tracked in self._tracked.values() if not tracked.passed)

    def _next_check_of(self, evidence: Evidence, since: float, checked_at: float) -> float:
        again = checked_at + max(RECHECK_SECONDS, RECHECK_SHARE * (checked_at - since))
        if evidence.grace_seconds is None:
            return again
        return min(again, max(since + evidence.grace_seconds, checked_at))
