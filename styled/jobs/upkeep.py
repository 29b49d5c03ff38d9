"""What comes after jobs: inputs leave the inbox, old jobs are forgotten, the gallery is updated."""

from __future__ import annotations

import json
import math
from itertools import islice

import structlog

from styled.errors import FolderNotWritable, ResourceUnavailable, StyledError
from styled.files import readable
from styled.jobs.io_context import IoContext
from styled.jobs.io_pool import IoDone
from styled.jobs.job import Job
from styled.jobs.pause import Pauses
from styled.jobs.pending import Pending
from styled.jobs.requests import (
    GalleryRequest,
    ReleaseRequest,
    Stuck,
    TidyRequest,
    WithdrawRequest,
)

log = structlog.get_logger()

FIRST_STUCK_SECONDS = 30.0
LONGEST_STUCK_SECONDS = 600.0
"""How often it is tried whether inputs may leave that could not: ever less often, up to the
longest, as long as it is the same ones."""

MOST_STUCK_SHOWN = 100
"""How many of them are named in `styled status`."""

TIDIED_AFTER_JOBS = 200
"""After so many jobs those are forgotten that ended long ago."""

GALLERY_SECONDS = 60.0
"""How often the gallery is updated where nothing has ended: it may have failed before."""


class Upkeep:
    """Has requests made for what is due.

    Attributes:
        stuck: Inputs that are done with but can't leave the inbox, by path: a job and the reason.
    """

    def __init__(self, context: IoContext, pending: Pending, pauses: Pauses) -> None:
        """Add to `pending`; nothing is due but to tidy up what an earlier process has left."""
        self._context = context
        self._pending = pending
        self._pauses = pauses
        self.stuck: dict[str, tuple[Job, StyledError]] = {}
        self._stuck_seconds = FIRST_STUCK_SECONDS
        self._stuck_at = math.inf
        self._untidied = TIDIED_AFTER_JOBS
        self._is_tidying = False
        self._gallery_at = 0.0
        self._is_updating_gallery = False
        self._delayed: list[ReleaseRequest | WithdrawRequest] = []

    def job_finished(self) -> None:
        """A job has ended."""
        self._untidied += 1
        self._gallery_at = 0.0

    def tidy_soon(self) -> None:
        """Let inputs leave that may, and forget old jobs, in the next turn."""
        self._untidied = TIDIED_AFTER_JOBS

    def request_what_is_due(self) -> None:
        """Have requests made for all that is due, unless the queue is paused."""
        if self._pauses.is_paused:
            return
        self._pending.requests += self._delayed
        self._delayed.clear()
        clock = self._context.clock()
        if self._untidied >= TIDIED_AFTER_JOBS and not self._is_tidying:
            self._untidied, self._is_tidying = 0, True
            self._pending.requests.append(TidyRequest(self._context))
        if clock >= self._stuck_at:
            self._retry_stuck()
        if clock >= self._gallery_at:
            self._update_gallery()

    def finish(self) -> None:
        """Have the gallery updated with what has ended since the last time, before the end."""
        if self._gallery_at == 0.0:
            self._update_gallery()

    def _update_gallery(self) -> None:
        """Have the gallery updated, unless that is being done."""
        if self._context.gallery_updater is not None and not self._is_updating_gallery:
            self._is_updating_gallery = True
            self._gallery_at = self._context.clock() + GALLERY_SECONDS
            self._pending.requests.append(GalleryRequest(self._context))

    @property
    def next_at(self) -> float:
        """When something will be due, by the clock that measures."""
        has_gallery = self._context.gallery_updater is not None and not self._is_updating_gallery
        return min(self._stuck_at, self._gallery_at if has_gallery else math.inf)

    def done(self, event: IoDone) -> None:
        """Take what has become of one of its requests."""
        match event.request:
            case ReleaseRequest(job=job) as request:
                self._released(request, job, event.error)
            case TidyRequest():
                self._tidied(event)
            case GalleryRequest():
                self._is_updating_gallery = False
                if event.result:
                    self._gallery_at = 0.0

    def try_again(self, request: ReleaseRequest | WithdrawRequest, error: StyledError) -> None:
        """Have a request made again after a pause of the queue."""
        self._pauses.pause(error, request)
        self._delayed.append(request)

    def _released(self, request: ReleaseRequest, job: Job, error: StyledError | None) -> None:
        if error is None or isinstance(error, Stuck):
            self._note_stuck([(job, error)])
            self._gallery_at = 0.0  # what was rejected is shown once it has left
        elif isinstance(error, ResourceUnavailable):
            self.try_again(request, error)
        else:
            log.error("input.not_released", reason=error.message)

    def _tidied(self, event: IoDone) -> None:
        self._is_tidying = False
        if isinstance(event.error, ResourceUnavailable):
            self._untidied = TIDIED_AFTER_JOBS
            self._pauses.pause(event.error, event.request)
        if event.error is not None:
            return
        forgotten, stuck = event.result
        if forgotten:
            log.info("jobs.forgotten", count=forgotten)
        self._note_stuck(stuck)

    def _retry_stuck(self) -> None:
        self._stuck_seconds = min(2 * self._stuck_seconds, LONGEST_STUCK_SECONDS)
        self._stuck_at = self._context.clock() + self._stuck_seconds
        for job, _ in self.stuck.values():
            self._pending.requests.append(ReleaseRequest(job, self._context, again=True))

    def _note_stuck(self, found: list[tuple[Job, Stuck | None]] | list[tuple[Job, Stuck]]) -> None:
        """Remember which inputs can't leave, log what is new, and keep it for `styled status`."""
        before = {path: error.message for path, (_, error) in self.stuck.items()}
        for job, error in found:
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
            for path, (_, error) in islice(self.stuck.items(), MOST_STUCK_SHOWN)
        ]
        self._pending.write(
            self._context.journal.set_state,
            stuck_inputs=json.dumps(shown),
            stuck_count=str(len(self.stuck)),
        )


def is_withdrawn(error: StyledError | None) -> bool:
    """Tell whether a job may end after its result was to be taken back."""
    if error is None:
        return True
    if isinstance(error, ResourceUnavailable) and not isinstance(error, FolderNotWritable):
        return False
    # What stays is a result without a sidecar, which counts as none.
    log.error("result.not_withdrawn", reason=error.message)
    return True
