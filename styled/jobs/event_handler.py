"""Dispatches the events of engines, of the I/O pool and of other threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, assert_never

from styled.config import Style
from styled.engine_api import (
    CheckpointIgnored,
    Degraded,
    EngineEvent,
    EngineInfo,
    Failed,
    Painted,
    Progress,
    Stopped,
)
from styled.errors import JournalDamaged, NodeLost, ResourceUnavailable, StyledError
from styled.jobs.engines import Engines
from styled.jobs.events import (
    CheckpointSaved,
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
    Wakeup,
)
from styled.jobs.io_context import IoContext
from styled.jobs.io_pool import IoDone
from styled.jobs.job import Phase
from styled.jobs.job_finisher import JobFinisher
from styled.jobs.job_log import job_log_context, log_context_of
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.maintenance import Maintenance, may_end_unpublished
from styled.jobs.pause import Pauses
from styled.jobs.pending import Pending
from styled.jobs.prepare_request import PrepareRequest
from styled.jobs.requests import PublishRequest, UnpublishRequest
from styled.jobs.running import RunningJob


class EngineObserver(Protocol):
    """Is told about engines; implemented by the daemon."""

    def engine_ready(self, slot_name: str, info: EngineInfo) -> None:
        """Called when a slot has an engine."""


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
        pending: Pending,
        observer: EngineObserver,
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
            observer: Is told about engines.
            styles: All styles by name, until the first reload.
        """
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
            case EngineReady(slot_name, info):
                self._engine_ready(slot_name, info)
            case EngineLost(slot_name, error, retry_seconds):
                self._engine_lost(slot_name, error, retry_seconds)
            case EngineStalled(slot_name):
                self._engine_stalled(slot_name)
            case EngineReported(slot_name, run_id, reported):
                self._engine_reported(slot_name, run_id, reported)
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
                self._lifecycle.set_service_degradations(part, degradations)
            case SlotAdded(new_slot):
                if not self.is_stopping:
                    self._engines.add(new_slot)
                    self._record_engines()
            case SlotRemoved(slot_name, reason):
                self._slot_removed(slot_name, reason)
            case StopRequested():
                self._stop()
            case Wakeup() | CheckpointSaved():
                pass  # they only make the scheduler take a turn
            case _:
                assert_never(event)

    def _engine_ready(self, slot_name: str, info: EngineInfo) -> None:
        """Record a new engine, and tell the observer."""
        self._engines.engine_ready(slot_name, info)
        self._record_engines()
        self._observer.engine_ready(slot_name, info)

    def _engine_reported(self, slot_name: str, run_id: int, event: EngineEvent) -> None:
        """Handle an event of the task that an engine runs.

        Checkpoint pieces, previews and frames do not come here: the slot's thread stores them.

        Raises:
            StyledError: this process can't continue.
        """
        if isinstance(event, Painted | Stopped | Failed):
            self._engines.assignment_ended(slot_name, run_id)
        running = self._running.of_run(run_id)
        if running is None:
            return  # the job is painted by another engine by now, or was requeued
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

    def _engine_lost(self, slot_name: str, error: StyledError, retry_seconds: float | None) -> None:
        """Handle the loss of a slot's engine.

        Raises:
            StyledError: the last engine is lost, and none will come; the daemon ends with it.
        """
        run_id = self._engines.engine_lost(slot_name, error, retry_seconds)
        self._record_engines()
        if run_id is not None and (running := self._running.of_run(run_id)):
            with job_log_context(log_context_of(running.job)):
                self._finisher.engine_lost(running, error)
        if self._engines.none_will_come:
            self._flush()
            raise error

    def _slot_removed(self, slot_name: str, reason: str) -> None:
        """Close a slot; its job is requeued, unless it has lost too many machines.

        Raises:
            StyledError: this process can't continue.
        """
        run_id = self._engines.remove(slot_name, reason)
        self._record_engines()
        if run_id is not None and (running := self._running.of_run(run_id)):
            with job_log_context(log_context_of(running.job)):
                self._finisher.engine_lost(running, NodeLost(f"{slot_name} was removed: {reason}"))

    def _engine_stalled(self, slot_name: str) -> None:
        """Abandon an engine that has sent no heartbeat for too long, if it can be replaced.

        If it can't, nothing is done here: systemd's watchdog restarts the daemon.

        Raises:
            StyledError: this process can't continue.
        """
        if self._engines.replace(slot_name):
            error = StyledError(f"{slot_name} has sent no heartbeat for too long and was replaced")
            self._engine_lost(slot_name, error, 0.0)  # its replacement is being made already

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
            case UnpublishRequest():  # an unfinished result of a job that ends
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
            self._engines.assignment_ended(slot, assignment.run_id)
        unsent = {assignment.run_id for _, assignment in self._pending.assignments}
        self._pending.assignments.clear()
        for running in self._running.in_phase(Phase.PREPARING, Phase.READY, Phase.PAINTING):
            with job_log_context(log_context_of(running.job)):
                is_painting = running.phase is Phase.PAINTING and running.run_id not in unsent
                if is_painting and running.slot_name is not None:
                    self._engines.stop(running.slot_name, running.job.id)
                else:
                    self._finisher.interrupted(running)
        self._engines.close()

    def _flush(self) -> None:
        """Commit the pending journal writes if possible, because the loop is about to end."""
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
