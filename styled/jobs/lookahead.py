"""Reading the next photo while the present one is painted."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from styled.config import Config, Style
from styled.engine.memory import free_bytes
from styled.errors import ResourceUnavailable
from styled.files import lies_in
from styled.jobs.backstage import LOOK_SECONDS, Backstage
from styled.jobs.job import Job
from styled.jobs.looking import JournalReader
from styled.jobs.preparation import Prepared
from styled.jobs.protocols import Beat

SHARE_OF_FREE = 0.1
"""How much of the memory that is free the next photo may take while the present is painted."""

BYTES_PER_PIXEL = 20
"""What a photo takes while it is read; one with 16 bits and opacity up to four times that."""


def pixels_beside(bytes_per_pixel: int) -> int:
    """Return how many pixels may be worked on beside a painting, which has the rest of memory."""
    free = free_bytes(torch.device("cpu"))
    return sys.maxsize if free is None else int(free * SHARE_OF_FREE / bytes_per_pixel)


Read = Callable[[Job, Style, int], Prepared]
"""Reads the photo of a job for a style, unless it has more pixels than so many."""

Stamp = tuple[int, int, int, int]
"""Size, mtime_ns, ctime_ns and number of a file."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What is being read for one job.

    Attributes:
        seen: The photo and the style's images, as they were before they were read.
    """

    job: Job
    style: Style
    seen: tuple[Stamp | None, ...]
    reading: Future[Prepared]


class Lookahead:
    """Keeps at most one photo that is read but not painted yet.

    What goes wrong on the way is no news: the photo is read again when its turn has come, and
    fails then.
    """

    def __init__(
        self,
        backstage: Backstage,
        config: Config,
        journal: JournalReader,
        styles: Callable[[], Mapping[str, Style]],
        read: Read,
        beat: Beat,
        now: Callable[[], float],
    ) -> None:
        """Have `backstage` call `read` for the job that `journal` has next."""
        self._backstage = backstage
        self._inbox = config.inbox
        self._max_pixels = config.intake.max_pixels
        self._journal = journal
        self._styles = styles
        self._read = read
        self._beat = beat
        self._now = now
        self._ahead: _Ahead | None = None

    def look(self) -> None:
        """Begin to read the photo whose turn is next, unless that has begun already."""
        with suppress(ResourceUnavailable):  # its own turn will say so
            job = self._journal.next_to_claim(self._now())
            style = None if job is None else self._styles().get(job.style)
            ahead = self._ahead
            # One that has been begun before may be what killed the process: if it does so again,
            # nothing else must seem to have.
            is_harmless = job is not None and job.attempts == 0
            if (
                job is None
                or style is None
                or not is_harmless
                or not lies_in(self._inbox, job.input)
            ):
                self.forget()
            elif ahead is None or (ahead.job, ahead.style) != (job, style):
                self.forget()
                self._begin(job, style)

    def take(self, job: Job, style: Style) -> Prepared | None:
        """Return what was read for a job, if it was and is still what lies there."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.reading.cancel() or ahead.job.id != job.id:
            return None
        while True:
            self._beat(0.0)
            try:
                prepared = ahead.reading.result(LOOK_SECONDS)
            except NotYet:
                if not ahead.reading.done():
                    continue
                return None
            except (CancelledError, Exception):  # noqa: BLE001  # it will be met again
                return None
            is_same = ahead.style == style and ahead.seen == self._seen(job, style)
            return prepared if is_same else None

    def _begin(self, job: Job, style: Style) -> None:
        seen = self._seen(job, style)
        if seen[0] is not None and seen[0][:2] == (job.size, job.mtime_ns):
            reading = self._backstage.do(lambda: self._read(job, style, self._most_pixels()))
            self._ahead = _Ahead(job, style, seen, reading)

    def _most_pixels(self) -> int:
        return min(self._max_pixels, pixels_beside(BYTES_PER_PIXEL))

    def forget(self) -> None:
        """Let go of what was read, and do not begin to read what waits to be."""
        if self._ahead is not None:
            self._ahead.reading.cancel()
            self._ahead = None

    def _seen(self, job: Job, style: Style) -> tuple[Stamp | None, ...]:
        paths = (self._inbox / job.input, *(image.path for image in style.images))
        return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> Stamp | None:
    """Return what changes with a regular file's content, None where there is none.

    Whoever writes to a file may keep its size and put its date back, but no one sets its ctime.
    """
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
