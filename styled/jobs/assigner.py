"""Assigns prepared jobs to free engines, and decides when a large photo is prepared."""

from __future__ import annotations

from styled.job_io.job_log import job_log_context, log_context_of
from styled.jobs.engines import Engines
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.running import RunningJobs
from styled.journal.job import Phase


class Assigner:
    """Assigns jobs to engines."""

    def __init__(self, running: RunningJobs, engines: Engines, lifecycle: Lifecycle) -> None:
        """Assign jobs in `running` to `engines`; `lifecycle` builds the assignments."""
        self._running = running
        self._engines = engines
        self._lifecycle = lifecycle

    def assign(self) -> None:
        """Assign prepared jobs to free engines, in the order in which they were claimed.

        A free engine waits for a job that is still being prepared instead of taking a later one.
        """
        if not self._engines.free_count:
            return
        if any(one.publishes_alone for one in self._running.in_phase(Phase.PUBLISHING)):
            return
        prefetched = self._running.in_phase(Phase.PREPARING, Phase.READY)
        in_order = [one for one in prefetched if not one.is_deferred]
        for running, (name, info) in zip(in_order, list(self._engines.free_slots()), strict=False):
            if running.phase is Phase.READY:
                with job_log_context(log_context_of(running.job)):
                    assignment_id = self._lifecycle.assign(running, name, info)
                    self._engines.assignment_started(name, assignment_id)

    def prepare_deferred(self) -> None:
        """Prepare a job that is too large to run beside others, once no other job is active."""
        preparing = self._running.in_phase(Phase.PREPARING)
        deferred = [one for one in preparing if one.is_deferred]
        if not deferred or len(preparing) > len(deferred):
            return
        if not self._running.in_phase(Phase.READY, Phase.PAINTING):
            self._lifecycle.prepare_deferred(deferred[0])
