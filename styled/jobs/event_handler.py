"""Dispatches the events of engines, of the I/O pool and of other threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from styled.config import Style
from styled.errors import JournalDamaged
from styled.job_io.io_context import IoContext
from styled.job_io.io_pool import IoDone
from styled.job_io.job_log import job_log_context, log_context_of
from styled.job_io.prepare_request import PrepareRequest
from styled.job_io.requests import PublishRequest, UnpublishRequest
from styled.jobs.engine_events import EngineEventHandler
from styled.jobs.engines import Engines
from styled.jobs.events import (
    CheckpointSaved,
    EngineLost,
    EngineReady,
    EngineReported,
    EngineStalled,
    Event,
    PreviewSaved,
    ServiceDegradationsChanged,
    SlotAdded,
    SlotRemoved,
    StopRequested,
    StylesChanged,
    Wakeup,
)
from styled.jobs.job_finisher import JobFinisher
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.maintenance import Maintenance, may_end_unpublished
from styled.jobs.pause import Pauses
from styled.jobs.pending_effects import PendingEffects
from styled.jobs.running import RunningJob
from styled.journal.job import Phase


class EventHandler:
    """Dispatches each event to the job or engine that it concerns.

    Attributes:
        styles: All styles by name, as of the last reload.
        is_stopping: Whether a stop was requested.
        requests_open: Number of requests that the I/O pool has not finished. The scheduler adds
            those that it sends.
    """

    def __init__(
        self,
        context: IoContext,
        engines: Engines,
        lifecycle: Lifecycle,
        finisher: JobFinisher,
        maintenance: Maintenance,
        pauses: Pauses,
        pending: PendingEffects,
        engine_events: EngineEventHandler,
        styles: Mapping[str, Style],
    ) -> None:
        """Dispatch events to these objects.

        Args:
            context: The objects of the daemon.
            engines: The engine slots.
            lifecycle: Moves jobs from phase to phase.
            finisher: Ends jobs, requeues or rejects them.
            maintenance: The work after jobs.
            pauses: Pauses of the queue after errors.
            pending: Collects what the scheduler writes and sends at the end of its turn.
            engine_events: Handles the events of engines.
            styles: All styles by name, until the first reload.
        """
        self._context = context
        self.styles = styles
        self.is_stopping = False
        self.requests_open = 0
        self._engines = engines
        self._lifecycle = lifecycle
        self._running = lifecycle.running
        self._finisher = finisher
        self._maintenance = maintenance
        self._pauses = pauses
        self._pending = pending
        self._engine_events = engine_events

    def handle(self, event: Event) -> None:
        """Handle an event.

        Raises:
            StyledError: this process can't continue.
        """
        match event:
            case EngineReady(engine_name, info):
                self._engine_events.ready(engine_name, info)
            case EngineLost(engine_name, error, retry_seconds):
                self._engine_events.lost(engine_name, error, retry_seconds)
            case EngineStalled(engine_name):
                self._engine_events.stalled(engine_name)
            case EngineReported(engine_name, assignment_id, reported):
                self._engine_events.reported(engine_name, assignment_id, reported)
            case IoDone():
                self.requests_open -= 1
                self._io_done(event)
            case PreviewSaved(job_id, path):
                if running := self._running.get(job_id):
                    self._lifecycle.previewed(running, path)
            case StylesChanged(styles):
                self.styles = styles
                self._drop_outdated()
            case ServiceDegradationsChanged(part, degradations):
                self._lifecycle.service.replace(part, degradations)
            case SlotAdded(slot):
                if not self.is_stopping:
                    self._engine_events.slot_added(slot)
            case SlotRemoved(engine_name, reason):
                self._engine_events.slot_removed(engine_name, reason)
            case StopRequested():
                self._stop()
            case Wakeup() | CheckpointSaved():
                pass  # they only make the scheduler take a turn
            case _:
                assert_never(event)

    def _io_done(self, event: IoDone) -> None:
        """Handle a finished request to the I/O pool.

        Raises:
            JournalDamaged: the request has found the journal damaged.
        """
        request = event.request
        if isinstance(event.error, JournalDamaged):
            raise event.error
        if not isinstance(request, PrepareRequest | PublishRequest | UnpublishRequest):
            # Maintenance, which belongs to no running job.
            self._maintenance.done(event)
            if event.error is None:
                self._pauses.succeeded(request)
            return
        running = self._running.get(request.job.id)
        if running is None or running.request is not request:
            return  # outdated: the job was requeued, or has made another request
        with job_log_context(log_context_of(running.job)):
            self._job_request_done(running, event)

    def _job_request_done(self, running: RunningJob, event: IoDone) -> None:
        """Handle a finished request of a running job.

        Raises:
            StyledError: this process can't continue.
        """
        request, error = event.request, event.error
        match request:
            case UnpublishRequest():  # an incomplete result of a job that ends
                if error is None or may_end_unpublished(error):
                    self._pauses.succeeded(request)
                    self._finisher.unpublished(running)
                else:
                    self._maintenance.try_again(request, error)
            case _ if error is not None:
                self._finisher.failed(running, error)
            case PrepareRequest():
                self._pauses.succeeded(request)
                self._lifecycle.prepared(running, event.result)
            case PublishRequest():
                self._pauses.succeeded(request)
                self._lifecycle.published(running, request, event.result)

    def _drop_outdated(self) -> None:
        """Requeue jobs that are preparing or ready and whose style has changed.

        A job that is painted or published keeps the style that it started with.
        """
        for running in self._running.in_phase(Phase.PREPARING, Phase.READY):
            if running.style != self.styles.get(running.job.style):
                with job_log_context(log_context_of(running.job)):
                    self._finisher.interrupted(running)

    def _stop(self) -> None:
        """Requeue all jobs but those being published; engines stop after their next step first."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self._context.is_stopping.set()  # long I/O requests return early
        for slot, assignment in self._pending.assignments:  # a failed commit has delayed them
            self._engines.assignment_ended(slot, assignment.assignment_id)
        unsent = {assignment.assignment_id for _, assignment in self._pending.assignments}
        self._pending.assignments.clear()
        for running in self._running.in_phase(Phase.PREPARING, Phase.READY, Phase.PAINTING):
            with job_log_context(log_context_of(running.job)):
                is_painting = (
                    running.phase is Phase.PAINTING and running.assignment_id not in unsent
                )
                if is_painting and running.engine_name is not None:
                    self._engines.stop(running.engine_name, running.job.id)
                else:
                    self._finisher.interrupted(running)
        self._engines.close()
