"""Data that the intake passes to the daemon, and the protocol by which it calls the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from styled.intake.scanning import Skipped


@dataclass(frozen=True, slots=True)
class SettledInput:
    """A file that has stopped changing, and the styles to paint it in.

    Attributes:
        path: Relative to the inbox.
        size: In bytes.
        mtime_ns: Nanoseconds since the epoch.
        destinations: Style -> path of the result, relative to the style's outbox folder.
    """

    path: str
    size: int
    mtime_ns: int
    destinations: dict[str, str]


@dataclass(frozen=True, slots=True)
class IncompleteInput:
    """A file that is considered incomplete.

    Attributes:
        path: Relative to the inbox.
        reason: One sentence.
        until: Unix time from which the file is accepted as it is; None: not before it changes.
    """

    path: str
    reason: str
    until: float | None


@dataclass(frozen=True, slots=True)
class InboxReport:
    """What is in the inbox and needs attention; most of it does not become jobs.

    Attributes:
        unpaired: Number of files that belong to no style.
        not_pictures: Number of files that are not pictures, neither by name nor by content.
        incomplete: Files whose upload is not complete.
        skipped: Files and folders that were left out, such as those that can't be read.
        misspelled: Pairs (folder, style) whose names differ by case or Unicode form only.
        invalid_settings: Pairs (photo, problem) of photos whose own settings are not valid. If
            they belong to a style, they become jobs, which are rejected if that is still so when
            their turn comes.
    """

    unpaired: int = 0
    not_pictures: int = 0
    incomplete: tuple[IncompleteInput, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    misspelled: tuple[tuple[str, str], ...] = ()
    invalid_settings: tuple[tuple[str, str], ...] = ()


class IntakeHost(Protocol):
    """What the intake needs from the daemon. All methods are called from the intake's thread."""

    def submit(self, inputs: Sequence[SettledInput]) -> int:
        """Queue jobs for these inputs; return how many of the jobs are new.

        Raises:
            ResourceUnavailable: they can't be queued now. The next scan submits them again.
        """

    def is_submitted(self, path: str, size: int, mtime_ns: int) -> bool:
        """Return whether this file of the inbox was submitted before, by any process.

        Raises:
            ResourceUnavailable: that can't be told now.
        """

    def require_inbox(self) -> None:
        """Check that the inbox exists and its disk is mounted; called before each scan.

        Raises:
            ResourceUnavailable: it does not exist, or its disk is not mounted.
        """

    def maintain(self) -> None:
        """Restore style folders that were removed; called every `rescan_seconds`."""

    def watching_changed(self, problem: str | None) -> None:
        """Called with the reason why the inbox is polled; None: kernel events arrive again."""

    def problem_changed(self, problem: str | None) -> None:
        """Called with the reason why the inbox can't be scanned; None: it can be again."""

    def report_changed(self, report: InboxReport) -> None:
        """Called with the files and folders that do not become jobs, when these have changed."""

    def heartbeat(self, idle_for: float) -> None:
        """Called as a heartbeat; the next one follows within about `idle_for` seconds."""
