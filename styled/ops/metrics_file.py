"""The file that node_exporter reads: written when there is news, and seldom otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

LONGEST_SECONDS = 600.0
"""How old the file gets at most. The example alert StyledDown goes by it."""


class MetricsFile:
    """Writes metrics to a file when what matters has changed, and every `LONGEST_SECONDS`.

    A disk that is written to every minute never rests, and a memory card wears out.
    """

    def __init__(
        self,
        path: Path,
        write: Callable[[Path, bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to `path` by `write`, which replaces the whole file; measure by `clock`."""
        self._path = path
        self._write = write
        self._clock = clock
        self._written_at: float | None = None
        self._written: object = None

    def update(self, what_matters: object, text: Callable[[], bytes]) -> bool:
        """Write the file if there is a reason; return whether there was one.

        Args:
            what_matters: Compared with that of the last time. Whatever changes by itself, such
                as the time, should not be part of it.
            text: Returns the whole content; called only where it is to be written.

        Raises:
            whatever `write` and `text` raise; the next call tries again.
        """
        now = self._clock()
        is_fresh = self._written_at is not None and now - self._written_at < LONGEST_SECONDS
        if is_fresh and what_matters == self._written:
            return False
        self._write(self._path, text())
        self._written_at, self._written = now, what_matters
        return True
