"""The settle gate: a file passes once it has stopped changing and its content is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from styled.intake.scanning import FoundFile
from styled.intake.unfinished import Sign

RECHECK_SECONDS = 2.0
RECHECK_SHARE = 0.1
"""When an unfinished file is checked again if no event arrives: a writer may close it without one.

The interval is this share of the time that the file has been unchanged, and at least
`RECHECK_SECONDS`.
"""


class UnfinishedCheckProtocol(Protocol):
    """Checks the content of files that have stopped changing; see `UnfinishedCheck`."""

    def sign_of(self, file: FoundFile, waited_seconds: float) -> Sign | None:
        """Return why the file looks unfinished, None if it can be accepted."""


class PictureCheckProtocol(Protocol):
    """Checks what finished files are; see `styled.intake.other_files`."""

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
        sign: Why it, or its version before the last change, looked unfinished.
        checked_at: When its content was last checked.
        is_finished: Whether its content was found complete: it is not checked again.
        passed: Whether it has passed the gate.
        is_picture: Whether it becomes a job, as far as is known.
    """

    file: FoundFile
    since: float
    sign: Sign | None = None
    checked_at: float | None = None
    is_finished: bool = False
    passed: bool = False
    is_picture: bool = True


@dataclass(frozen=True, slots=True)
class UnfinishedFile:
    """A file that looks unfinished.

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
        check: UnfinishedCheckProtocol,
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
                sign = None if tracked is None or tracked.is_finished else tracked.sign
                tracked = self._tracked[file.path] = _Tracked(file, now, sign)
            seen[file.path] = tracked
            if not tracked.passed and self._is_due(tracked, now):
                tracked.passed = True
                if tracked.is_picture:
                    yield file
        self._tracked = seen

    def _is_due(self, tracked: _Tracked, now: float) -> bool:
        if now < tracked.since + self._settle_seconds:
            return False
        if not tracked.is_finished:
            if self._was_just_checked(tracked, now):
                return False
            if self._was_submitted(tracked.file):
                tracked.is_finished = True
                return True
            tracked.sign = self._check.sign_of(tracked.file, now - tracked.since)
            tracked.checked_at = now
            tracked.is_finished = tracked.sign is None
            if tracked.is_finished and self._picture_check is not None:
                tracked.is_picture = self._picture_check.is_picture(tracked.file.path)
        return tracked.is_finished

    def _was_submitted(self, file: FoundFile) -> bool:
        return self._submitted is not None and self._submitted.is_submitted(
            file.path, file.size, file.mtime_ns
        )

    def _was_just_checked(self, tracked: _Tracked, now: float) -> bool:
        """Return whether the content was checked so recently that it need not be read again."""
        sign = tracked.sign
        if sign is None or tracked.checked_at is None or not sign.is_of_content:
            return False
        ends = tracked.since + (sign.grace_seconds or 0.0)
        return now < min(ends, tracked.checked_at + RECHECK_SECONDS)

    def resubmit_all(self) -> None:
        """Let all settled files pass again, for instance because the styles have changed."""
        for tracked in self._tracked.values():
            tracked.passed = False

    def unfinished(self) -> list[UnfinishedFile]:
        """Return the files that have stopped changing but look unfinished."""
        return [
            UnfinishedFile(
                path,
                tracked.sign.reason,
                None
                if tracked.sign.grace_seconds is None
                else tracked.since + tracked.sign.grace_seconds,
            )
            for path, tracked in self._tracked.items()
            if tracked.sign is not None and not tracked.is_finished
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
        """Return when the next unfinished file is to be checked again, None if there is none."""
        return min(
            (
                self._next_check_of(tracked.sign, tracked.since, tracked.checked_at)
                for tracked in self._not_passed()
                if tracked.checked_at is not None and tracked.sign is not None
            ),
            default=None,
        )

    def may_settle(self) -> bool:
        """Return whether a file is still changing, or has a content sign whose grace will end."""
        return any(
            tracked.sign is None or tracked.sign.is_of_content for tracked in self._not_passed()
        )

    def not_taken(self) -> list[tuple[str, str]]:
        """Return pairs (path, reason) of the files that have not passed."""
        return [
            (tracked.file.path, "has not stopped changing" if sign is None else sign.reason)
            for tracked in self._not_passed()
            for sign in [tracked.sign]
        ]

    def _not_passed(self) -> Iterator[_Tracked]:
        return (tracked for tracked in self._tracked.values() if not tracked.passed)

    def _next_check_of(self, sign: Sign, since: float, checked_at: float) -> float:
        again = checked_at + max(RECHECK_SECONDS, RECHECK_SHARE * (checked_at - since))
        if sign.grace_seconds is None:
            return again
        return min(again, max(since + sign.grace_seconds, checked_at))
