"""Work after jobs: release inputs from the inbox, prune old jobs, update the gallery."""

from __future__ import annotations

import json
import math
from itertools import islice

import structlog

from styled.errors import FolderNotWritable, ResourceUnavailable, StyledError
from styled.files import readable
from styled.job_io.io_context import IoContext
from styled.job_io.io_pool import IoDone
from styled.job_io.requests import (
    CleanupRequest,
    GalleryRequest,
    ReleaseRequest,
    Stuck,
    UnpublishRequest,
)
from styled.jobs.pause import Pauses
from styled.jobs.pending_effects import PendingEffects
from styled.journal.job import Job

log = structlog.get_logger()

FIRST_STUCK_SECONDS = 30.0
MAX_STUCK_SECONDS = 600.0
"""Back-off for releasing stuck inputs again: doubles up to the longest, and starts again from the
first when the set of stuck inputs changes."""

MAX_STUCK_SHOWN = 100
"""Maximum number of stuck inputs listed by `styled status`."""

CLEANUP_AFTER_JOBS = 200
"""Number of finished jobs between two cleanups, which release inputs and prune old jobs."""

GALLERY_SECONDS = 60.0
"""Interval of gallery updates if no job ends: an earlier update may have failed."""


class Maintenance:
    """Makes requests for maintenance work when it is due.

    Attributes:
        stuck: Inputs that can't leave the inbox although all their jobs have ended. Maps a path to
            one of the jobs and the error.
    """

    def __init__(self, context: IoContext, pending: PendingEffects, pauses: Pauses) -> None:
        """Add requests to `pending`; a cleanup after an earlier process is due at once."""
        self._context = context
        self._pending = pending
        self._pauses = pauses
        self.stuck: dict[str, tuple[Job, StyledError]] = {}
        self._stuck_seconds = FIRST_STUCK_SECONDS
        self._stuck_at = math.inf
        self._jobs_since_cleanup = CLEANUP_AFTER_JOBS
        self._is_cleaning_up = False
        self._gallery_at = 0.0
        self._is_updating_gallery = False
        self._delayed: list[ReleaseRequest | UnpublishRequest] = []

    def job_finished(self) -> None:
        """Count a job that has ended, and make a gallery update due."""
        self._jobs_since_cleanup += 1
        self._gallery_at = 0.0

    def cleanup_soon(self) -> None:
        """Make a cleanup due in the next turn: release inputs and prune old jobs."""
        self._jobs_since_cleanup = CLEANUP_AFTER_JOBS

    def request_due_work(self) -> None:
        """Make requests for all work that is due, unless the queue is paused."""
        if self._pauses.is_paused:
            return
        self._pending.requests += self._delayed
        self._delayed.clear()
        clock = self._context.clock()
        if self._jobs_since_cleanup >= CLEANUP_AFTER_JOBS and not self._is_cleaning_up:
            self._jobs_since_cleanup, self._is_cleaning_up = 0, True
            self._pending.requests.append(CleanupRequest(self._context))
        if clock >= self._stuck_at:
            self._retry_stuck()
        if clock >= self._gallery_at:
            self._update_gallery()

    def finish(self) -> None:
        """Request a last gallery update before the end, if jobs have ended since the previous."""
        if self._gallery_at == 0.0:
            self._update_gallery()

    def _update_gallery(self) -> None:
        """Request a gallery update, unless there is one already."""
        if self._context.gallery_updater is not None and not self._is_updating_gallery:
            self._is_updating_gallery = True
            self._gallery_at = self._context.clock() + GALLERY_SECONDS
            self._pending.requests.append(GalleryRequest(self._context))

    @property
    def next_at(self) -> float:
        """When work will be due, in seconds of `context.clock`."""
        has_gallery = self._context.gallery_updater is not None and not self._is_updating_gallery
        return min(self._stuck_at, self._gallery_at if has_gallery else math.inf)

    def done(self, event: IoDone) -> None:
        """Handle a finished maintenance request."""
        match event.request:
            case ReleaseRequest(job=job) as request:
                self._released(request, job, event.error)
            case CleanupRequest():
                self._cleanup_done(event)
            case GalleryRequest():
                self._is_updating_gallery = False
                if event.result:
                    self._gallery_at = 0.0

    def try_again(self, request: ReleaseRequest | UnpublishRequest, error: StyledError) -> None:
        """Pause the queue because of `error`, and make the request again after the pause."""
        self._pauses.pause(error, request)
        self._delayed.append(request)

    def _released(self, request: ReleaseRequest, job: Job, error: StyledError | None) -> None:
        if error is None or isinstance(error, Stuck):
            self._record_stuck([(job, error)])
            self._gallery_at = 0.0  # rejected inputs are shown once they have left the inbox
        elif isinstance(error, ResourceUnavailable):
            self.try_again(request, error)
        else:
            log.error("input.not_released", reason=error.message)

    def _cleanup_done(self, event: IoDone) -> None:
        self._is_cleaning_up = False
        if isinstance(event.error, ResourceUnavailable):
            self._jobs_since_cleanup = CLEANUP_AFTER_JOBS
            self._pauses.pause(event.error, event.request)
        if event.error is not None:
            return
        pruned, stuck = event.result
        if pruned:
            log.info("jobs.pruned", count=pruned)
        self._record_stuck(stuck)

    def _retry_stuck(self) -> None:
        self._stuck_seconds = min(2 * self._stuck_seconds, MAX_STUCK_SECONDS)
        self._stuck_at = self._context.clock() + self._stuck_seconds
        for job, _ in self.stuck.values():
            self._pending.requests.append(ReleaseRequest(job, self._context, again=True))

    def _record_stuck(
        self, releases: list[tuple[Job, Stuck | None]] | list[tuple[Job, Stuck]]
    ) -> None:
        """Update the stuck inputs, log new ones, and store them for `styled status`.

        Args:
            releases: Jobs whose input was to be released; the error is None if it was.
        """
        before = {path: error.message for path, (_, error) in self.stuck.items()}
        for job, error in releases:
            if error is None:
                self.stuck.pop(job.input, None)
                continue
            self.stuck[job.input] = job, error
            if before.get(job.input) != error.message:
                log.error(
                    "input.stuck", path=readable(job.input), reason=error.message,
                    remedies=list(error.remedies),
                )  # fmt: skip
        if before == {path: error.message for path, (_, error) in self.stuck.items()}:
            return
        if before.keys() != self.stuck.keys():
            self._stuck_seconds = FIRST_STUCK_SECONDS
            self._stuck_at = self._context.clock() + FIRST_STUCK_SECONDS
        if not self.stuck:
            self._stuck_at = math.inf
        shown = [
            {"path": path, "reason": error.message, "remedies": error.remedies}
            for path, (_, error) in islice(self.stuck.items(), MAX_STUCK_SHOWN)
        ]
        self._pending.write(
            self._context.journal.set_state,
            stuck_inputs=json.dumps(shown),
            stuck_count=str(len(self.stuck)),
        )


def may_end_unpublished(error: StyledError) -> bool:
    """Return whether a job may end although its `UnpublishRequest` has failed.

    Otherwise the request is made again after a pause.
    """
    if isinstance(error, ResourceUnavailable) and not isinstance(error, FolderNotWritable):
        return False
    # What remains is a result without a sidecar, which does not count as published.
    log.error("result.not_removed", reason=error.message)
    return True
