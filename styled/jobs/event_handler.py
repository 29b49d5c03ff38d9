"""What becomes of the events of engines and of the I/O pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from styled.config import Style
from styled.engine_api import Degraded, EngineInfo, Failed, Painted, Progress, Stopped
from styled.errors import JournalDamaged, ResourceUnavailable, StyledError
from styled.jobs.endings import Endings
from styled.jobs.engines import Engines
from styled.jobs.events import (
    EngineLost,
    EngineReady,
    EngineSaid,
    EngineStalled,
    Event,
    PreviewSaved,
    ServiceDegraded,
    StopRequested,
    StylesChanged,
)
from styled.jobs.io_context import IoContext
from styled.jobs.io_pool import IoDone
from styled.jobs.job import Phase
from styled.jobs.job_log import job_log_context, log_context_of
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.pause import Pauses
from styled.jobs.pending import Pending
from styled.jobs.prepare_request import PrepareRequest
from styled.jobs.requests import PublishRequest, WithdrawRequest
from styled.jobs.running import RunningJob
from styled.jobs.upkeep import Upkeep, is_withdrawn


class EngineObserver(Protocol):
    """Is told of engines."""

    def engine_ready(self, name: str, info: EngineInfo) -> None:
        """A slot has an engine."""


class EventHandler:
    """Leads each event to the job that it is about.

    Attributes:
        styles: As the last reload has made them.
        is_stopping: Whether a stop was requested.
        requests_open: How many requests the I/O pool has not done yet.
    """

    def __init__(
        self,
        context: IoContext,
        engines: Engines,
        lifecycle: Lifecycle,
        endings: Endings,
        upkeep: Upkeep,
        pauses: Pauses,
        pending: Pending,
        observer: EngineObserver,
        styles: Mapping[str, Style],
    ) -> None:
        """Tell these what has happened."""
        self._context = context
        self._journal = context.journal
        self._observer = observer
        self.styles = styles
        self.is_stopping = False
        self.requests_open = 0
        self._engines = engines
        self._lifecycle = lifecycle
        self._running = lifecycle.running
        self._endings = endings
        self._upkeep = upkeep
        self._pauses = pauses
        self._pending = pending

    def handle(self, event: Event) -> None:
        """Take an event.

        Raises:
            StyledError: this process can't go on.
        """
        match event:
            case EngineReady(slot, info):
                self._engine_ready(slot, info)
                self._observer.engine_ready(slot, info)
            case EngineLost(slot, error, retry_seconds):
                self._engine_lost(slot, error, retry_seconds)
            case EngineStalled(slot):
                self._engine_stalled(slot)
            case EngineSaid(slot, run, said):
                self._engine_said(slot, run, said)
            case IoDone():
                self.requests_open -= 1
                self._io_done(event)
            case PreviewSaved(job_id, path):
                if running := self._running.get(job_id):
                    self._lifecycle.previewed(running, path)
            case StylesChanged(styles):
                self.styles = styles
                self._drop_outdated()
            case ServiceDegraded(degradations):
                self._lifecycle.service_degraded = degradations
            case StopRequested():
                self._stop()

    def _engine_ready(self, slot: str, info: EngineInfo) -> None:
        """A slot has an engine."""
        self._engines.ready(slot, info)
        self._note_engines()

    def _engine_said(self, slot: str, run: int, said: object) -> None:
        """An engine has reported something of what it paints."""
        if isinstance(said, Painted | Stopped | Failed):
            self._engines.end(slot, run)
        running = self._running.of_run(run)
        if running is None:
            return  # of an engine that was given up
        with job_log_context(log_context_of(running.job)):
            match said:
                case Progress():
                    self._lifecycle.progressed(running, said)
                case Degraded(degradations):
                    self._lifecycle.note_degraded(running, degradations)
                case Painted():
                    self._lifecycle.painted(running, said)
                case Stopped():
                    self._endings.interrupted(running)
                case Failed(error):
                    self._endings.failed(running, error)

    def _engine_lost(self, slot: str, error: StyledError, retry_seconds: float | None) -> None:
        """A slot has no engine any more.

        Raises:
            StyledError: no other has one, and none is to come.
        """
        run = self._engines.lost(slot, error, retry_seconds)
        self._note_engines()
        if run is not None and (running := self._running.of_run(run)):
            with job_log_context(log_context_of(running.job)):
                self._endings.engine_lost(running, error)
        if self._engines.are_all_gone:
            self._flush()
            raise error

    def _engine_stalled(self, slot: str) -> None:
        """An engine has given no sign of life for so long that it is given up, if it can be."""
        if self._engines.replace(slot):
            error = StyledError(f"the engine {slot} has given no sign of life for too long")
            self._engine_lost(slot, error, 0.0)

    def _io_done(self, event: IoDone) -> None:
        """A request to the I/O pool is done.

        Raises:
            JournalDamaged: it has found that.
        """
        request = event.request
        if isinstance(event.error, JournalDamaged):
            raise event.error
        if not isinstance(request, PrepareRequest | PublishRequest | WithdrawRequest):
            self._upkeep.done(event)
            if event.error is None:
                self._pauses.succeeded(request)
            return
        running = self._running.get(request.job.id)
        if running is None or running.request is not request:
            return  # it was returned to the queue meanwhile
        with job_log_context(log_context_of(running.job)):
            self._job_request_done(running, event)

    def _job_request_done(self, running: RunningJob, event: IoDone) -> None:
        request, error = event.request, event.error
        match request:
            case WithdrawRequest():
                if is_withdrawn(error):
                    self._pauses.succeeded(request)
                    self._endings.withdrawn(running)
                elif error is not None:
                    self._upkeep.try_again(request, error)
            case _ if error is not None:
                self._endings.failed(running, error)
            case PrepareRequest():
                self._pauses.succeeded(request)
                self._lifecycle.prepared(running, event.result)
            case PublishRequest():
                self._pauses.succeeded(request)
                self._lifecycle.published(running, request, event.result)

    def _drop_outdated(self) -> None:
        """Begin anew with what has been prepared, but not yet painted, in a style that changed."""
        for running in self._running.in_phase(Phase.PREPARING, Phase.READY):
            if running.style != self.styles.get(running.job.style):
                with job_log_context(log_context_of(running.job)):
                    self._endings.interrupted(running)

    def _stop(self) -> None:
        if self.is_stopping:
            return
        self.is_stopping = True
        self._context.is_stopping.set()
        for running in self._running.in_phase(Phase.PREPARING, Phase.READY, Phase.PAINTING):
            with job_log_context(log_context_of(running.job)):
                if running.phase is Phase.PAINTING and running.slot is not None:
                    self._engines.stop(running.slot, running.job.id)
                else:
                    self._endings.interrupted(running)
        self._engines.close()

    def _flush(self) -> None:
        """Write what is to be written, if that is possible: the loop ends here."""
        try:
            with self._journal.transaction():
                for write in self._pending.writes:
                    write()
        except (ResourceUnavailable, JournalDamaged):
            return  # the next start finds all as it is
        self._pending.writes.clear()

    def _note_engines(self) -> None:
        """Keep what engines there are, for `styled status`."""
        self._pending.write(self._journal.set_state, engines=self._engines.as_json())
