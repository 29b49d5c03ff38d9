"""Polls the journal for requests of other processes: to cancel jobs, to pause the queue."""

from __future__ import annotations

import math

from styled.errors import ResourceUnavailable
from styled.job_io.io_context import IoContext
from styled.job_io.job_log import job_log_context, log_context_of
from styled.jobs.engines import Engines
from styled.jobs.job_finisher import JobFinisher
from styled.jobs.pause import Pauses
from styled.jobs.requested_pause import RequestedPause
from styled.jobs.running import RunningJobs
from styled.journal.job import Job, Phase

CANCELLED_AT_ONCE = 50
"""Maximum number of jobs that one turn of the loop cancels."""

POLL_SECONDS = 1.0
"""How often to check whether another process has written to the journal."""


class RequestPoller:
    """Polls the journal for requests to cancel or to pause, and carries them out."""

    def __init__(
        self,
        context: IoContext,
        running: RunningJobs,
        engines: Engines,
        finisher: JobFinisher,
        pauses: Pauses,
        requested_pause: RequestedPause,
    ) -> None:
        """Cancel jobs through `finisher`; a painting job's engine is stopped first."""
        self._requested_pause = requested_pause
        self._context = context
        self._journal = context.journal
        self._running = running
        self._engines = engines
        self._finisher = finisher
        self._pauses = pauses
        self._polled_at = -math.inf
        self._changes_seen = -1

    @property
    def next_at(self) -> float:
        """When the journal is polled next, in seconds of `context.clock`."""
        return self._polled_at + POLL_SECONDS

    def poll(self) -> None:
        """Cancel the requested jobs and pause on request, if it is time to poll."""
        if self._context.clock() < self.next_at:
            return
        self._polled_at = self._context.clock()
        try:
            changes = self._journal.count_changes_by_others()
            if changes == self._changes_seen:
                return
            self._requested_pause.poll()
            jobs = self._journal.cancel_requests(CANCELLED_AT_ONCE)
        except ResourceUnavailable as error:
            self._pauses.pause(error, self._journal)
            return
        if len(jobs) < CANCELLED_AT_ONCE:
            self._changes_seen = changes
        else:
            self._polled_at = -math.inf  # there may be more
        for job in jobs:
            with job_log_context(log_context_of(job)):
                self._cancel(job)

    def _cancel(self, job: Job) -> None:
        running = self._running.get(job.id)
        if running is None:
            self._finisher.cancel_queued(job)
        elif running.end_reason is None and running.phase is not Phase.PUBLISHING:
            running.is_cancelled = True
            if running.phase is Phase.PAINTING and running.engine_name is not None:
                self._engines.stop(running.engine_name, job.id)
            elif running.phase is Phase.READY or running.is_deferred:
                self._finisher.cancel(running)
