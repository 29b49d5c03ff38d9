"""The metrics file for node_exporter: written on changes, and rarely otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from styled.atomic import atomic_write

INTERVAL_SECONDS = 600.0
"""Maximum age of the file. The example alert StyledDown depends on it."""


class MetricsFile:
    """Writes metrics to a file when relevant values have changed, and every `INTERVAL_SECONDS`.

    Writing every minute would keep a disk from spinning down and wear out a memory card.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `path`; measure time by `clock`."""
        self._path = path
        self._clock = clock
        self._written_at: float | None = None
        self._written: object = None

    def is_due(self, relevant: object) -> bool:
        """Tell whether the file is too old, or was written with other relevant values.

        Args:
            relevant: What to compare. It should not contain values that change all the time,
                such as clocks.
        """
        is_old = self._written_at is None or self._clock() - self._written_at >= INTERVAL_SECONDS
        return is_old or relevant != self._written

    def write(self, relevant: object, text: bytes) -> None:
        """Replace the file by `text`, whose relevant values are `relevant`.

        Raises:
            ResourceUnavailable: it can't be written; it remains due.
        """
        atomic_write(self._path, text)
        self._written_at, self._written = self._clock(), relevant
