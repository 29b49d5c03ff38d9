"""Applies the events of engines and of their slots to the jobs that they paint."""

from __future__ import annotations

from typing import Protocol

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
from styled.job_io.job_log import job_log_context, log_context_of
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.engines import Engines
from styled.jobs.job_finisher import JobFinisher
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.pending_effects import PendingEffects
from styled.journal.journal import Journal


class EngineObserver(Protocol):
    """Is told about engines; implemented by the daemon."""

    def engine_ready(self, engine_name: str, info: EngineInfo) -> None:
        """Called when a slot has an engine."""


class EngineEventHandler:
    """Handles what happens to engines; each method is called for one kind of event."""

    def __init__(
        self,
        journal: Journal,
        engines: Engines,
        lifecycle: Lifecycle,
        finisher: JobFinisher,
        pending: PendingEffects,
        observer: EngineObserver,
    ) -> None:
        """Change the jobs of `lifecycle`, and tell `observer` about engines."""
        self._journal = journal
        self._engines = engines
        self._lifecycle = lifecycle
        self._running = lifecycle.running
        self._finisher = finisher
        self._pending = pending
        self._observer = observer

    def slot_added(self, slot: EngineSlot) -> None:
        """Start a further slot."""
        self._engines.add(slot)
        self._record_engines()

    def ready(self, engine_name: str, info: EngineInfo) -> None:
        """Record a new engine, and tell the observer."""
        self._engines.engine_ready(engine_name, info)
        self._record_engines()
        self._observer.engine_ready(engine_name, info)

    def reported(self, engine_name: str, assignment_id: int, event: EngineEvent) -> None:
        """Handle an event of the task that an engine runs.

        Checkpoint pieces, previews and frames do not come here: the slot's thread stores them.

        Raises:
            StyledError: this process can't continue.
        """
        if isinstance(event, Painted | Stopped | Failed):
            self._engines.assignment_ended(engine_name, assignment_id)
        running = self._running.of_assignment(assignment_id)
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

    def lost(self, engine_name: str, error: StyledError, retry_seconds: float | None) -> None:
        """Handle the loss of a slot's engine.

        Raises:
            StyledError: the last engine is lost, and none will come; the daemon ends with it.
        """
        assignment_id = self._engines.engine_lost(engine_name, error, retry_seconds)
        self._record_engines()
        if assignment_id is not None and (running := self._running.of_assignment(assignment_id)):
            with job_log_context(log_context_of(running.job)):
                self._finisher.engine_lost(running, error)
        if self._engines.none_will_come:
            self._flush()
            raise error

    def slot_removed(self, engine_name: str, reason: str) -> None:
        """Close a slot; its job is requeued, unless it has lost too many machines.

        Raises:
            StyledError: this process can't continue.
        """
        assignment_id = self._engines.remove(engine_name, reason)
        self._record_engines()
        if assignment_id is not None and (running := self._running.of_assignment(assignment_id)):
            with job_log_context(log_context_of(running.job)):
                self._finisher.engine_lost(
                    running, NodeLost(f"{engine_name} was removed: {reason}")
                )

    def stalled(self, engine_name: str) -> None:
        """Abandon an engine that has sent no heartbeat for too long, if it can be replaced.

        If it can't, nothing is done here: systemd's watchdog restarts the daemon.

        Raises:
            StyledError: this process can't continue.
        """
        if self._engines.replace(engine_name):
            error = StyledError(
                f"{engine_name} has sent no heartbeat for too long and was replaced"
            )
            self.lost(engine_name, error, 0.0)  # its replacement is being made already

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
