"""The settle gate: a file is let through once it has stopped changing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from styled.intake.scanning import Found


@dataclass(slots=True)
class _Watched:
    found: Found
    since: float
    let_through: bool = False


class SettleGate:
    """Remembers what each file looked like and since when.

    Only what two looks have seen counts, on a clock that never jumps: modification times
    are set by other machines, and by copies that keep the old ones.
    """

    def __init__(self, settle_seconds: float) -> None:
        """Let a file through after `settle_seconds` without a change."""
        self._settle_seconds = settle_seconds
        self._watched: dict[str, _Watched] = {}

    def pass_settled(self, found: Iterable[Found], now: float) -> list[Found]:
        """Return the files that have just settled; each is let through once.

        Args:
            found: All files of one look. Those that are missing from it are forgotten.
            now: Monotonic seconds.
        """
        settled = []
        watched: dict[str, _Watched] = {}
        for file in found:
            entry = self._watched.get(file.path)
            if entry is None or entry.found != file:
                entry = _Watched(file, since=now)
            watched[file.path] = entry
            if not entry.let_through and now >= entry.since + self._settle_seconds:
                entry.let_through = True
                settled.append(file)
        self._watched = watched
        return settled

    def forget(self) -> None:
        """Let everything through once more, for instance because the styles have changed."""
        for entry in self._watched.values():
            entry.let_through = False

    def next_settled_at(self) -> float | None:
        """Return when the next file may settle, None where all have."""
        waiting = [entry.since for entry in self._watched.values() if not entry.let_through]
        return min(waiting) + self._settle_seconds if waiting else None
