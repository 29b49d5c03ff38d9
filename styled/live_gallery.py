"""Keeps the gallery page up to date about what is being painted, from a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from styled.delivery.gallery import Gallery
from styled.delivery.live import LiveFiles, LiveJob
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.jobs.snapshot import EngineSnapshot, SnapshotSource
from styled.journal.job import JobState

log = structlog.get_logger()

UPDATE_SECONDS = 3.0
"""Interval of updates while something is painted."""


class LiveGallery:
    """Writes what is being painted beside the gallery page, and removes it afterwards.

    It reads the scheduler's snapshot. Nothing waits for it: a slow or missing outbox delays no job.
    """

    def __init__(self, gallery: Gallery, scheduler: SnapshotSource) -> None:
        """Show the jobs of `scheduler` in `gallery`."""
        self._gallery = gallery
        self._files = LiveFiles(gallery.files)
        self._scheduler = scheduler
        self._stopping = threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="live-gallery", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, within_seconds: float = 1.0) -> None:
        """Remove the files and end the thread; give up if the outbox hangs."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(within_seconds)

    def update(self) -> None:
        """Write the files, or remove them if nothing is painted.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        queue = self._scheduler.snapshot
        jobs = [job for engine in queue.engines if (job := _live_job(engine)) is not None]
        if jobs:
            if self._gallery.files.page_stamp() is None:
                self._gallery.add([])  # the first painting: there is no page yet
            self._files.write(jobs, queue.count(JobState.QUEUED))
        elif not self._files.is_empty:
            self._files.clear()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._try(self.update)
            self._stopping.wait(UPDATE_SECONDS)
        self._try(self._files.clear)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
            self._problem = ""
        # No file in the outbox may end this thread.
        except Exception as error:
            if not isinstance(error, ResourceUnavailable | OSError):
                log.exception("live_gallery.internal_error")
            if str(error) != self._problem:  # other parts report what is wrong with the outbox
                log.info("live_gallery.failed", reason=str(error))
            self._problem = str(error)


def _live_job(engine: EngineSnapshot) -> LiveJob | None:
    job, progress = engine.job, engine.progress
    if job is None:
        return None
    if progress is None:
        return LiveJob(job.id, readable(job.input), job.style, job.fraction, None, None, None)
    return LiveJob(
        job.id,
        readable(job.input),
        job.style,
        progress.fraction,
        progress.seconds_left,
        (progress.width, progress.height),
        Path(progress.preview) if progress.preview is not None else None,
    )
