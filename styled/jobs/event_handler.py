"""Dispatches the events of engines, of the I/O pool and of other threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from styled.config import Style
from styled.engine_api import (
    CheckpointIgnored,
    Degraded,
    EngineInfo,
    Failed,
    Painted,
    Progress,
    Stopped,
)
from styled.errors import JournalDamaged, NodeLost, ResourceUnavailable, StyledError
from styled.jobs.engines import Engines
from styled.jobs.events import (
    EngineLost,
    EngineReady,
    EngineReported,
    EngineStalled,
    Event,
    PreviewSaved,
    ServiceDegraded,
    SlotAdded,
    SlotRemoved,
    StopRequested,
    StylesChanged,
)
from styled.jobs.io_context import IoContext
from styled.jobs.io_pool import IoDone
from styled.jobs.job import Phase
from styled.jobs.job_finisher import JobFinisher
from styled.jobs.job_log import job_log_context, log_context_of
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.maintenance import Maintenance, is_unpublished
from styled.jobs.pause import Pauses
from styled.jobs.pending import Pending
from styled.jobs.prepare_request import PrepareRequest
from styled.jobs.requests import PublishRequest, UnpublishRequest
from styled.jobs.running import RunningJob


class EngineObserver(Protocol):
    """Receives notifications about engines."""

    def engine_ready(self, name: str, info: EngineInfo) -> None:
        """Called when a slot has an engine."""


class EventHandler:
    """Dispatches each event to the job or engine that it concerns.

    Attributes:
        styles: All styles by name, as of the last reload.
        is_stopping: Whether a stop was requested.
        requests_open: Number of requests that the I/O pool has not finished.
    """

    def __init__(
        self,
        context: IoContext,
        engines: Engines,
        lifecycle: Lifecycle,
        finisher: JobFinisher,
        maintenance: Maintenance,
        pauses: Pauses,
        pending: Pending,
        observer: EngineObserver,
        styles: Mapping[str, Style],
    ) -> None:
        """Dispatch events to these objects; start with `styles`."""
        self._context = context
        self._journal = context.journal
        self._observer = observer
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

    def handle(self, event: Event) -> None:
        """Handle an event.

        Raises:
            StyledError: this process can't continue.
        """
        match event:
            case EngineReady(slot, info):
                self._engine_ready(slot, info)
                self._observer.engine_ready(slot, info)
            case EngineLost(slot, error, retry_seconds):
                self._engine_lost(slot, error, retry_seconds)
            case EngineStalled(slot):
                self._engine_stalled(slot)
            case EngineReported(slot, run_id, reported):
                self._engine_reported(slot, run_id, reported)
            case IoDone():
                self.requests_open -= 1
                self._io_done(event)
            case PreviewSaved(job_id, path):
                if running := self._running.get(job_id):
                    self._lifecycle.previewed(running, path)
            case StylesChanged(styles):
                self.styles = styles
                self._drop_outdated()
            case ServiceDegraded(part, degradations):
                self._lifecycle.service_changed(part, degradations)
            case SlotAdded(new_slot):
                if not self.is_stopping:
                    self._engines.add(new_slot)
                    self._record_engines()
            case SlotRemoved(slot, reason):
                self._slot_removed(slot, reason)
            case StopRequested():
                self._stop()

    def _engine_ready(self, slot: str, info: EngineInfo) -> None:
        """Handle a new engine in a slot."""
        self._engines.ready(slot, info)
        self._record_engines()

    def _engine_reported(self, slot: str, run_id: int, event: object) -> None:
        """Handle an event of the task that an engine runs."""
        if isinstance(event, Painted | Stopped | Failed):
            self._engines.end(slot, run_id)
        running = self._running.of_run(run_id)
        if running is None:
            return  # from an engine that was abandoned
        with job_log_context(log_context_of(running.job)):
            match event:
                case Progress():
                    self._lifecycle.progressed(running, event)
                case CheckpointIgnored(reason):
                    self._lifecycle.restarted(running, reason)
                case Degraded(degradations):
                    self._lifecycle.record_degraded(running, degradations)
                case Painted():
                    self._lifecycle.painted(running, event)
                case Stopped():
                    self._finisher.interrupted(running)
                case Failed(error):
                    self._finisher.failed(running, error)

    def _engine_lost(self, slot: str, error: StyledError, retry_seconds: float | None) -> None:
        """Handle the loss of a slot's engine.

        Raises:
            StyledError: no slot has an engine, and none will get one.
        """
        run_id = self._engines.lost(slot, error, retry_seconds)
        self._record_engines()
        if run_id is not None and (running := self._running.of_run(run_id)):
            with job_log_context(log_context_of(running.job)):
                self._finisher.engine_lost(running, error)
        if self._engines.are_all_gone:
            self._flush()
            raise error

    def _slot_removed(self, slot: str, reason: str) -> None:
        """Close a slot; a job that it runs is requeued, to resume on another engine."""
        run_id = self._engines.remove(slot, reason)
        self._record_engines()
        if run_id is not None and (running := self._running.of_run(run_id)):
            with job_log_context(log_context_of(running.job)):
                self._finisher.engine_lost(
                    running, NodeLost(f"the engine {slot} is gone: {reason}")
                )

    def _engine_stalled(self, slot: str) -> None:
        """Abandon an engine that has sent no heartbeat for too long, if it can be replaced."""
        if self._engines.replace(slot):
            error = StyledError(f"the engine {slot} has given no sign of life for too long")
            self._engine_lost(slot, error, 0.0)

    def _io_done(self, event: IoDone) -> None:
        """Handle a finished request to the I/O pool.

        Raises:
            JournalDamaged: the request has found the journal damaged.
        """
        request = event.request
        if isinstance(event.error, JournalDamaged):
            raise event.error
        if not isinstance(request, PrepareRequest | PublishRequest | UnpublishRequest):
            self._maintenance.done(event)
            if event.error is None:
                self._pauses.succeeded(request)
            return
        running = self._running.get(request.job.id)
        if running is None or running.request is not request:
            return  # the job was requeued in the meantime
        with job_log_context(log_context_of(running.job)):
            self._job_request_done(running, event)

    def _job_request_done(self, running: RunningJob, event: IoDone) -> None:
        request, error = event.request, event.error
        match request:
            case UnpublishRequest():
                if is_unpublished(error):
                    self._pauses.succeeded(request)
                    self._finisher.unpublished(running)
                elif error is not None:
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
        """Requeue jobs that are preparing or ready and whose style has changed."""
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
            self._engines.end(slot, assignment.run_id)
        unsent = {assignment.run_id for _, assignment in self._pending.assignments}
        self._pending.assignments.clear()
        for running in self._running.in_phase(Phase.PREPARING, Phase.READY, Phase.PAINTING):
            with job_log_context(log_context_of(running.job)):
                is_painting = running.phase is Phase.PAINTING and running.run_id not in unsent
                if is_painting and running.slot is not None:
                    self._engines.stop(running.slot, running.job.id)
                else:
                    self._finisher.interrupted(running)
        self._engines.close()

    def _flush(self) -> None:
        """Write all pending changes if possible, because the loop ends here."""
        try:
            with self._journal.transaction():
                for write in self._pending.writes:
                    write()
        except (ResourceUnavailable, JournalDamaged):
            return  # the next start recovers from the state in the journal
        self._pending.writes.clear()

    def _record_engines(self) -> None:
        """Record the engines in the journal, for `styled status`."""
        self._pending.write(self._journal.set_state, engines=self._engines.as_json())
