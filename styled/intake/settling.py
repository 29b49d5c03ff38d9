"""The settle gate: a file is let through once it has stopped changing and nothing is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from styled.intake.scanning import Found
from styled.intake.unfinished import Sign

CHECK_AGAIN_SECONDS = 2.0
CHECK_AGAIN_SHARE = 0.1
"""How soon an unfinished file is looked at again where no event has come, as a writer may end
without one: ever later, as a share of the time that it has waited."""


class FinishedCheck(Protocol):
    """Looks into files that have stopped changing; see `UnfinishedCheck`."""

    def sign_of(self, file: Found, waited_seconds: float) -> Sign | None:
        """Return why the file is not to be taken yet, None where it can be."""


@dataclass(slots=True)
class _Tracked:
    """What is known of one file.

    Attributes:
        since: Since when it has looked like this.
        sign: Why it, or what lay there before it changed, was taken to be unfinished.
        checked_at: When it was looked into.
        is_finished: Whether it was found to be finished: it is not looked into again.
        let_through: Whether it has been handed on.
    """

    found: Found
    since: float
    sign: Sign | None = None
    checked_at: float | None = None
    is_finished: bool = False
    let_through: bool = False


@dataclass(frozen=True, slots=True)
class UnfinishedFile:
    """A file that waits until it is finished.

    Attributes:
        path: Relative to the inbox.
        until: When it is judged by what is there, on the gate's clock; None: not before it has
            changed.
    """

    path: str
    reason: str
    until: float | None


class SettleGate:
    """Remembers what each file looked like and since when.

    Only what two looks have seen counts, on a clock that never jumps: modification times
    are set by other machines, and by copies that keep the old ones.
    """

    def __init__(self, settle_seconds: float, check: FinishedCheck) -> None:
        """Let a file through after `settle_seconds` without a change, if `check` says so too."""
        self._settle_seconds = settle_seconds
        self._check = check
        self._tracked: dict[str, _Tracked] = {}

    def pass_settled(self, found: Iterable[Found], now: float) -> Iterator[Found]:
        """Yield the files that have just settled; each is let through once.

        Args:
            found: All files of one look. Once they have been gone through, those that were
                missing are forgotten.
            now: Monotonic seconds.
        """
        seen: dict[str, _Tracked] = {}
        for file in found:
            tracked = self._tracked.get(file.path)
            if tracked is None or tracked.found != file:
                sign = None if tracked is None or tracked.is_finished else tracked.sign
                tracked = self._tracked[file.path] = _Tracked(file, now, sign)
            seen[file.path] = tracked
            if not tracked.let_through and self._is_due(tracked, now):
                tracked.let_through = True
                yield file
        self._tracked = seen

    def _is_due(self, tracked: _Tracked, now: float) -> bool:
        if now < tracked.since + self._settle_seconds:
            return False
        if not tracked.is_finished:
            if self._is_known_to_wait(tracked, now):
                return False
            tracked.sign = self._check.sign_of(tracked.found, now - tracked.since)
            tracked.checked_at = now
            tracked.is_finished = tracked.sign is None
        return tracked.is_finished

    def _is_known_to_wait(self, tracked: _Tracked, now: float) -> bool:
        """Tell whether a file that has not changed was looked into only just now."""
        sign = tracked.sign
        if sign is None or tracked.checked_at is None or not sign.is_of_content:
            return False
        ends = tracked.since + (sign.grace_seconds or 0.0)
        return now < min(ends, tracked.checked_at + CHECK_AGAIN_SECONDS)

    def forget(self) -> None:
        """Let everything through once more, for instance because the styles have changed."""
        for tracked in self._tracked.values():
            tracked.let_through = False

    def unfinished(self) -> list[UnfinishedFile]:
        """Return the files that have stopped changing, but are taken to be unfinished."""
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

    def next_settled_at(self) -> float | None:
        """Return when the next file may settle that has not been looked into, None without one."""
        return min(
            (
                tracked.since + self._settle_seconds
                for tracked in self._not_let_through()
                if tracked.checked_at is None
            ),
            default=None,
        )

    def next_check_at(self) -> float | None:
        """Return when the next unfinished file is to be looked into again, None without one."""
        return min(
            (
                self._checked_again_at(tracked.sign, tracked.since, tracked.checked_at)
                for tracked in self._not_let_through()
                if tracked.checked_at is not None and tracked.sign is not None
            ),
            default=None,
        )

    def may_settle(self) -> bool:
        """Tell whether a file has not settled yet that will be judged once its grace is over."""
        return any(
            tracked.sign is None or tracked.sign.is_of_content
            for tracked in self._not_let_through()
        )

    def not_taken(self) -> list[tuple[str, str]]:
        """Return the files that have not been let through, and why."""
        return [
            (tracked.found.path, "has not stopped changing" if sign is None else sign.reason)
            for tracked in self._not_let_through()
            for sign in [tracked.sign]
        ]

    def _not_let_through(self) -> Iterator[_Tracked]:
        return (tracked for tracked in self._tracked.values() if not tracked.let_through)

    def _checked_again_at(self, sign: Sign, since: float, checked_at: float) -> float:
        again = checked_at + max(CHECK_AGAIN_SECONDS, CHECK_AGAIN_SHARE * (checked_at - since))
        if sign.grace_seconds is None:
            return again
        return min(again, max(since + sign.grace_seconds, checked_at))
