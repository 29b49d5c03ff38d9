"""The pause that a person asks for (`styled pause`), kept in the journal until `styled resume`."""

from __future__ import annotations

import structlog

from styled.job_io.io_context import IoContext
from styled.job_io.job_log import job_log_context, log_context_of
from styled.jobs.engines import Engines
from styled.jobs.job_finisher import JobFinisher
from styled.jobs.running import RunningJobs
from styled.journal.job import Phase
from styled.journal.pause_request import AFTER_CURRENT, PAUSE_REQUEST

log = structlog.get_logger()


class RequestedPause:
    """Whether the queue is paused on request.

    Attributes:
        is_active: Whether no job is begun.
    """

    def __init__(
        self, context: IoContext, running: RunningJobs, engines: Engines, finisher: JobFinisher
    ) -> None:
        """Start with what the journal says; jobs are stopped through `engines` and `finisher`."""
        self._journal = context.journal
        self._running = running
        self._engines = engines
        self._finisher = finisher
        self._requested = ""
        self.is_active = False

    def poll(self) -> None:
        """Read the request from the journal, and carry it out if it is new.

        Raises:
            ResourceUnavailable: the journal can't be read.
        """
        requested = self._journal.get_state().get(PAUSE_REQUEST, "")
        if requested == self._requested:
            return
        self._requested = requested
        was_active, self.is_active = self.is_active, bool(requested)
        if self.is_active != was_active:
            log.info(
                "queue.paused_on_request" if self.is_active else "queue.resumed_on_request",
                how=requested,
            )
        if not self.is_active:
            return
        for running in self._running.in_phase(Phase.PREPARING, Phase.READY, Phase.PAINTING):
            with job_log_context(log_context_of(running.job)):
                if running.phase is not Phase.PAINTING:
                    self._finisher.interrupted(running)
                elif running.engine_name is not None and requested != AFTER_CURRENT:
                    self._engines.stop(running.engine_name, running.job.id)
