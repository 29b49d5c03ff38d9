"""Adds each published result and each rejected input to the gallery once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from styled.errors import ResourceUnavailable
from styled.job_io.protocols import GalleryProtocol, SendHeartbeat
from styled.journal.job import Job, JobState
from styled.journal.journal import Journal

log = structlog.get_logger()

ENTRIES_AT_ONCE = 10
ADD_TIMEOUT_SECONDS = 600.0
"""Heartbeat timeout for adding `ENTRIES_AT_ONCE` entries: making thumbnails may take long."""

UPDATE_SECONDS = 2.0
"""Time limit of one update, after which the thread is free for other requests."""

RETRY_SECONDS = 60.0
"""Minimum delay after a failed update."""


class GalleryUpdater:
    """Updates the gallery. Nothing waits for an update, and no job fails because of one."""

    def __init__(
        self,
        journal: Journal,
        gallery: GalleryProtocol,
        outbox: Path,
        inbox: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Add finished jobs from `journal` to `gallery`.

        Args:
            journal: Of the daemon.
            gallery: To update.
            outbox: Folder of all results.
            inbox: Where originals are that have not been moved.
            clock: Monotonic, in seconds.
        """
        self._journal = journal
        self._gallery = gallery
        self._outbox = outbox
        self._inbox = inbox
        self._clock = clock
        self._not_before = 0.0
        self._problem = ""

    def update(self, heartbeat: SendHeartbeat = lambda idle_for: None) -> bool:
        """Add missing entries until `UPDATE_SECONDS` have passed.

        Args:
            heartbeat: Called before each batch.

        Returns:
            Whether there may be more entries to add now.

        Raises:
            ResourceUnavailable: the journal can't be used.
        """
        started = self._clock()
        if started < self._not_before:
            return False
        while self._clock() - started < UPDATE_SECONDS:
            jobs = self._journal.missing_from_gallery(ENTRIES_AT_ONCE)
            if not jobs:
                return False
            heartbeat(ADD_TIMEOUT_SECONDS)
            try:
                self._gallery.add([self._entry(job) for job in jobs])
            except (ResourceUnavailable, OSError) as error:
                reason = error.message if isinstance(error, ResourceUnavailable) else str(error)
                log.warning("gallery.failed", reason=reason)
                return self._retry_later(reason)
            # Any file may lie in the outbox; none of them may stop the daemon.
            except Exception as error:
                log.exception("gallery.internal_error")
                return self._retry_later(f"{type(error).__name__}: {error}")
            self._journal.mark_in_gallery(job.id for job in jobs)
            self._set_problem("")
        return True

    def _entry(self, job: Job) -> tuple[Path, Path | None]:
        original = Path(job.original) if job.original else None
        if job.state is JobState.DONE and job.result is not None:
            return self._outbox / job.result, original
        return original or self._inbox / job.input, None

    def _retry_later(self, reason: str) -> bool:
        self._set_problem(reason)
        self._not_before = self._clock() + RETRY_SECONDS
        return False

    def _set_problem(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._journal.set_state(gallery_problem=problem)
