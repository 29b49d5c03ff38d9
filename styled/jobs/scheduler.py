"""The scheduler: one loop over one queue of events, which drives any number of engines.

Everything that happens is an event. Only this thread changes a job's state, and it waits only at
the queue: slow work is done by the engine slots and the I/O pool. All journal writes of one turn of
the loop are one transaction. Requests and assignments are sent out after the commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Protocol

import structlog

from styled.config import Style
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.job_io.event_batches import take_events
from styled.job_io.io_context import IoContext
from styled.job_io.io_pool import IoPool
from styled.job_io.protocols import HeartbeatsProtocol
from styled.jobs.activity import ActivityReporter
from styled.jobs.assigner import Assigner
from styled.jobs.claimer import Claimer
from styled.jobs.engine_events import EngineEventHandler, EngineObserver
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.engines import Engines
from styled.jobs.event_handler import EventHandler
from styled.jobs.events import EngineReady, Event
from styled.jobs.job_finisher import JobFinisher, JobObserver
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.maintenance import Maintenance
from styled.jobs.pause import Pauses
from styled.jobs.pending_effects import PendingEffects
from styled.jobs.request_poller import RequestPoller
from styled.jobs.requested_pause import RequestedPause
from styled.jobs.running import RunningJobs
from styled.jobs.snapshot import QueueSnapshot

log = structlog.get_logger()

IDLE_SECONDS = 60.0
"""Maximum time that the loop waits; events wake it at once."""

STOPPING_SECONDS = 1.0
"""Maximum time that the loop waits while it is stopping, for running work to end."""

PART = "scheduler"
"""The scheduler's name in the heartbeats."""


class SchedulerObserver(JobObserver, EngineObserver, Protocol):
    """Receives notifications about jobs and engines."""


class Scheduler:
    """Processes the queue until a stop is requested.

    Attributes:
        pauses: Whether the queue is paused.
        maintenance: Has the inputs that can't leave the inbox.
        finisher: Has the number of rejected jobs.
    """

    def __init__(
        self,
        context: IoContext,
        slots: Sequence[EngineSlot],
        pool: IoPool,
        events: SimpleQueue[Event],
        styles: Mapping[str, Style],
        observer: SchedulerObserver,
        heartbeats: HeartbeatsProtocol,
    ) -> None:
        """Create a scheduler of `slots`, which post to `events`; `run` starts them."""
        self._context = context
        self._journal = context.journal
        self._engines = Engines(slots)
        self._pool = pool
        self._events = events
        self._observer = observer
        self._heartbeats = heartbeats
        self.pauses = Pauses(context.clock)
        self._pending = PendingEffects()
        self._running = RunningJobs()
        self.maintenance = Maintenance(context, self._pending, self.pauses)
        self.finisher = JobFinisher(context, self._running, self._pending, self.pauses, observer)
        self._lifecycle = Lifecycle(context, self._running, self._pending, self.finisher)
        self._requested_pause = RequestedPause(context, self._running, self._engines, self.finisher)
        self._claimer = Claimer(
            context, self._running, self._engines, self.pauses, self._requested_pause
        )
        self._request_poller = RequestPoller(
            context, self._running, self._engines, self.finisher, self.pauses, self._requested_pause
        )
        self._assigner = Assigner(self._running, self._engines, self._lifecycle)
        engine_events = EngineEventHandler(
            self._journal, self._engines, self._lifecycle, self.finisher, self._pending, observer
        )
        self._handler = EventHandler(
            context, self._engines, self._lifecycle, self.finisher, self.maintenance, self.pauses,
            self._pending, engine_events, styles,
        )  # fmt: skip
        self._activity = ActivityReporter(
            context, self._running, self._engines, self._lifecycle, self.pauses,
            self._requested_pause, self._pending,
        )  # fmt: skip
        self._is_journal_failing = False
        self._has_given_up = False

    def recover(self, *, is_blameless: bool = False) -> None:
        """Requeue the jobs of a dead process and delete outdated files; see `Journal.recover`.

        Raises:
            ResourceUnavailable: the journal can't be written.
        """
        for job in self._journal.recover(is_blameless=is_blameless):
            log.warning(
                "job.requeued_after_crash", job=job.id, input=readable(job.input), style=job.style
            )
        self._context.files.sweep(keep=self._journal.unfinished_ids())

    def start(self) -> None:
        """Start the engines."""
        self._engines.start()

    def run(self) -> None:
        """Run the loop until a stop was requested and all running work has ended.

        Raises:
            StyledError: the journal is damaged, or all engines are lost and can't be replaced.
        """
        self.start()
        try:
            while not self.is_over:
                self.turn(self._next_events())
        finally:
            self._engines.close()
            self._pool.close()
            self._activity.take_snapshot()

    @property
    def snapshot(self) -> QueueSnapshot:
        """The state of the queue and its engines; may be read from any thread."""
        return self._activity.snapshot

    @property
    def slots(self) -> Sequence[EngineSlot]:
        """The engine slots; may be read from any thread."""
        return self._engines.slots

    @property
    def is_over(self) -> bool:
        """Whether a stop was requested, and all running work has ended or the journal failed."""
        is_empty = not len(self._running) and not self.is_busy and not self._pending.writes
        return self._handler.is_stopping and (self._has_given_up or is_empty)

    @property
    def is_busy(self) -> bool:
        """Whether an engine or the I/O pool is working, so that another event will come."""
        return bool(self._handler.requests_open) or self._engines.is_busy

    @property
    def is_painting(self) -> bool:
        """Whether an engine is painting."""
        return self._engines.is_busy

    def turn(self, events: Sequence[Event]) -> None:
        """Handle events, commit the resulting decisions to the journal, then start the work.

        Raises:
            StyledError: as `run`.
        """
        for event in events:
            self._handler.handle(event)
            if isinstance(event, EngineReady):
                self._activity.reported = "running"  # the observer has just reported this
        if not self._handler.is_stopping:
            self._advance()
        elif not len(self._running) and not self.is_busy:
            self.maintenance.finish()
        self._activity.is_changed |= bool(events or self._pending.writes)
        if self._activity.is_changed or self._claimer.seconds_until_due == 0.0:
            room = 0 if self._handler.is_stopping else self._claimer.room
            may_write = self._pending.writes or room or self._is_journal_failing
            try:
                with self._journal.transaction() if may_write else nullcontext():
                    for write in self._pending.writes:
                        write()
                    claimed = self._claimer.claim(room)
            except ResourceUnavailable as error:
                self.pauses.pause(error, self._journal)
                self._claimer.defer_until_pause_ends()
                self._is_journal_failing = True
                self._has_given_up = self._handler.is_stopping  # the next start recovers
                return  # the pending writes are kept for the next turn
            if may_write:
                self._is_journal_failing = False
                self.pauses.succeeded(self._journal)
            self._pending.writes.clear()
            for job in claimed:
                self._lifecycle.begin(job, self._handler.styles)
            is_empty = not len(self._running) and not self._pending.requests
            if is_empty and not self._handler.requests_open and not self.pauses.is_paused:
                self.pauses.resume()  # no work is left whose success would end the pause
        self._send()
        self._activity.report()

    def _send(self) -> None:
        """Send out the turn's assignments, requests and notifications, after the commit."""
        pending = self._pending
        requests, pending.requests = pending.requests, []
        assignments, pending.assignments = pending.assignments, []
        finished, pending.finished_jobs = pending.finished_jobs, []
        for engine_name, assignment in assignments:
            self._engines.assign(engine_name, assignment)
        for request in requests:
            self._handler.requests_open += 1
            self._pool.submit(request)
        for job_finished in finished:
            self._observer.job_finished(job_finished)
            self.maintenance.job_finished()

    def _next_events(self) -> list[Event]:
        """Wait for an event or the next deadline; return the events that are in the queue."""
        seconds = self.seconds_to_wait()
        self._heartbeats.beat(PART, seconds)
        # While requests wait for a thread, nothing is gained by handling each event at once.
        has_backlog = seconds > 0 and self._handler.requests_open > self._pool.threads
        events = take_events(self._events, seconds, has_backlog=has_backlog)
        self._heartbeats.beat(PART)
        return events

    def seconds_to_wait(self) -> float:
        """Return the time until the next deadline, 0.0 if there is work to do now."""
        clock, is_paused = self._context.clock(), self.pauses.is_paused
        if self._pending.writes and not (is_paused and self._is_journal_failing):
            return 0.0
        if self._handler.is_stopping:
            return STOPPING_SECONDS
        deadlines = [clock + IDLE_SECONDS, self._request_poller.next_at]
        deadlines.append(self.pauses.until if is_paused else self.maintenance.next_at)
        deadlines.append(clock + self._claimer.seconds_until_due)
        return max(0.0, min(deadlines) - clock)

    def _advance(self) -> None:
        self._request_poller.poll()
        if not self.pauses.is_paused:
            self._assigner.prepare_deferred()
            self._assigner.assign()
        self.maintenance.request_due_work()
