"""Adds each published result and each rejected input to the gallery, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from styled.errors import ResourceUnavailable
from styled.jobs.job import Job, JobState
from styled.jobs.journal import Journal
from styled.jobs.protocols import Beat, Gallery

log = structlog.get_logger()

ENTRIES_AT_ONCE = 10
PATIENCE_SECONDS = 600.0
"""How long that may take where thumbnails have to be made of large pictures."""

UPDATE_SECONDS = 2.0
"""How long one update may take before other work gets its turn."""

RETRY_SECONDS = 60.0


class GalleryUpdater:
    """Brings the gallery up to date. Nothing waits for it, and no job fails because of it."""

    def __init__(
        self,
        journal: Journal,
        gallery: Gallery,
        outbox: Path,
        inbox: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Add to `gallery` what `journal` knows to have ended."""
        self._journal = journal
        self._gallery = gallery
        self._outbox = outbox
        self._inbox = inbox
        self._clock = clock
        self._not_before = 0.0
        self._trouble = ""

    def update(self, beat: Beat = lambda rest_seconds: None) -> bool:
        """Add what the gallery does not show yet, for a while; return whether there may be more.

        Raises:
            ResourceUnavailable: the journal can't be used.
        """
        begun = self._clock()
        if begun < self._not_before:
            return False
        while self._clock() - begun < UPDATE_SECONDS:
            jobs = self._journal.missing_from_gallery(ENTRIES_AT_ONCE)
            if not jobs:
                return False
            beat(PATIENCE_SECONDS)
            try:
                self._gallery.add([self._entry(job) for job in jobs])
            except (ResourceUnavailable, OSError) as error:
                reason = error.message if isinstance(error, ResourceUnavailable) else str(error)
                log.warning("gallery.failed", reason=reason)
                return self._retry_later(reason)
            # Whatever somebody has put into the outbox, the daemon goes on without the gallery.
            except Exception as error:
                log.exception("gallery.crashed")
                return self._retry_later(f"{type(error).__name__}: {error}")
            self._journal.mark_in_gallery(job.id for job in jobs)
            self._note_trouble("")
        return True

    def _entry(self, job: Job) -> tuple[Path, Path | None]:
        original = Path(job.original) if job.original else None
        if job.state is JobState.DONE and job.result is not None:
            return self._outbox / job.result, original
        return original or self._inbox / job.input, None

    def _retry_later(self, reason: str) -> bool:
        self._note_trouble(reason)
        self._not_before = self._clock() + RETRY_SECONDS
        return False

    def _note_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._journal.set_state(gallery_trouble=trouble)
