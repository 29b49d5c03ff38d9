"""The scheduler: one loop over one queue of events, which drives any number of engines.

Everything that happens is an event. Only this thread changes a job's state, and it waits nowhere
but at the queue: what takes time is done by the engines' slots and by the I/O pool. All journal
writes of one turn of the loop are one transaction; what follows from them is sent out after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

import structlog

from styled.config import Style
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.files import readable
from styled.jobs.assigning import Assigning
from styled.jobs.cancelling import Cancelling
from styled.jobs.claims import Claims
from styled.jobs.endings import Endings, JobObserver
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.engines import Engines
from styled.jobs.event_handler import EngineObserver, EventHandler
from styled.jobs.events import (
    Event,
)
from styled.jobs.io_context import IoContext
from styled.jobs.io_pool import IoPool
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.pause import Pauses
from styled.jobs.pending import Pending
from styled.jobs.protocols import Heartbeats
from styled.jobs.running import RunningJobs
from styled.jobs.snapshot import QueueSnapshot, snapshot_of
from styled.jobs.upkeep import Upkeep

log = structlog.get_logger()

EVENTS_AT_ONCE = 500
"""How many events one turn of the loop handles at the most."""

IDLE_SECONDS = 60.0
"""How long the loop waits at the most; events wake it at once."""

STOPPING_SECONDS = 1.0
"""How long it waits while it is stopping: for the last of what was begun."""

SNAPSHOT_SECONDS = 2.0
"""How often the snapshot is taken anew, at the most."""

PART = "scheduler"
"""What the heartbeats call it."""


class SchedulerObserver(JobObserver, EngineObserver, Protocol):
    """Is told what happens."""


class Scheduler:
    """Works through the queue until it is told to stop.

    Attributes:
        snapshot: How the queue stands; replaced by the loop, read by any thread.
        pauses: Whether the queue is paused.
        upkeep: Knows which inputs can't leave the inbox.
        endings: Knows how many jobs were rejected.
    """

    def __init__(
        self,
        context: IoContext,
        slots: Sequence[EngineSlot],
        pool: IoPool,
        events: SimpleQueue[Event],
        styles: Mapping[str, Style],
        observer: SchedulerObserver,
        heartbeats: Heartbeats,
    ) -> None:
        """Take `events`, which the slots and the pool put there too."""
        self._context = context
        self._journal = context.journal
        self._engines = Engines(slots)
        self._pool = pool
        self._events = events
        self._observer = observer
        self._heartbeats = heartbeats
        self.pauses = Pauses(context.clock)
        self._pending = Pending()
        self._running = RunningJobs()
        self.upkeep = Upkeep(context, self._pending, self.pauses)
        self.endings = Endings(context, self._running, self._pending, self.pauses, observer)
        self._lifecycle = Lifecycle(context, self._running, self._pending, self.endings)
        self._claims = Claims(context, self._running, self._engines, self.pauses)
        self._cancelling = Cancelling(
            context, self._running, self._engines, self.endings, self.pauses
        )
        self._assigning = Assigning(self._running, self._engines, self._lifecycle)
        self._handler = EventHandler(
            context, self._engines, self._lifecycle, self.endings, self.upkeep, self.pauses,
            self._pending, observer, styles,
        )  # fmt: skip
        self._snapshot_at = -math.inf
        self._shown_state = "running"
        self._is_changed = True
        self._is_journal_failing = False
        self._has_given_up = False
        self.snapshot = QueueSnapshot(self._engines.snapshot(self._running))

    def recover(self, *, is_blameless: bool = False) -> None:
        """Take up what an earlier process left behind; see `Journal.recover`.

        Raises:
            ResourceUnavailable: the journal can't be written.
        """
        for job in self._journal.recover(is_blameless=is_blameless):
            log.warning("job.recovered", job=job.id, input=readable(job.input), style=job.style)
        self._context.files.sweep(keep=self._journal.unfinished_ids())

    def start(self) -> None:
        """Start the engines."""
        self._engines.start()

    def run(self) -> None:
        """Work until a stop was requested and nothing is left to wait for.

        Raises:
            StyledError: the journal is damaged, or there is no engine, and none to come.
        """
        self.start()
        try:
            while not self.is_over:
                self.turn(self._next_events())
        finally:
            self._engines.close()
            self._pool.close()
            self._take_snapshot()

    @property
    def is_over(self) -> bool:
        """Whether it has stopped."""
        is_empty = not len(self._running) and not self.is_busy and not self._pending.writes
        return self._handler.is_stopping and (self._has_given_up or is_empty)

    @property
    def is_busy(self) -> bool:
        """Whether an engine or the I/O pool is at work, which ends in an event."""
        return bool(self._handler.requests_open) or self._engines.is_busy

    @property
    def is_painting(self) -> bool:
        """Whether an engine is at work."""
        return self._engines.is_busy

    @property
    def has_something_due(self) -> bool:
        """Whether another turn would do something, though no event has come."""
        return self.seconds_to_wait() == 0.0

    def turn(self, events: Sequence[Event]) -> None:
        """Handle some events, decide what follows, and make it durable before it is begun.

        Raises:
            StyledError: as `run`.
        """
        for event in events:
            self._handler.handle(event)
        if not self._handler.is_stopping:
            self._advance()
        elif not len(self._running) and not self.is_busy:
            self.upkeep.finish()
        self._is_changed |= bool(events or self._pending.writes)
        if self._is_changed or self._claims.seconds_until_due == 0.0:
            try:
                with self._journal.transaction():
                    for write in self._pending.writes:
                        write()
                    claimed = [] if self._handler.is_stopping else self._claims.claim()
            except ResourceUnavailable as error:
                self.pauses.pause(error, self._journal)
                self._claims.wait_for_the_pause()
                self._is_journal_failing = True
                self._has_given_up = self._handler.is_stopping  # the next start finds all as it is
                return  # what was to be written is still there
            self._is_journal_failing = False
            self.pauses.succeeded(self._journal)
            self._pending.writes.clear()
            for job in claimed:
                self._lifecycle.begin(job, self._handler.styles.get(job.style))
            is_empty = not len(self._running) and not self._pending.requests
            if is_empty and not self._handler.requests_open and not self.pauses.is_paused:
                self.pauses.resume()  # nothing is left that could tell
        self._send()
        self._show()

    def _send(self) -> None:
        """Hand on what the turn has decided, now that it is durable."""
        pending = self._pending
        requests, pending.requests = pending.requests, []
        assignments, pending.assignments = pending.assignments, []
        finished, pending.finished = pending.finished, []
        for slot, assignment in assignments:
            self._engines.assign(slot, assignment)
        for request in requests:
            self._handler.requests_open += 1
            self._pool.submit(request)
        for one in finished:
            self._observer.job_finished(one)
            self.upkeep.job_finished()

    def _next_events(self) -> list[Event]:
        """Wait for an event or for the next deadline; return all events that are there."""
        seconds = self.seconds_to_wait()
        self._heartbeats.beat(PART, seconds)
        events: list[Event] = []
        try:
            events.append(self._events.get(block=seconds > 0, timeout=seconds))
            while len(events) < EVENTS_AT_ONCE:
                events.append(self._events.get_nowait())
        except Empty:
            pass
        self._heartbeats.beat(PART)
        return events

    def seconds_to_wait(self) -> float:
        """Return how long nothing happens unless an event comes."""
        clock, is_paused = self._context.clock(), self.pauses.is_paused
        if self._pending.writes and not (is_paused and self._is_journal_failing):
            return 0.0
        if self._handler.is_stopping:
            return STOPPING_SECONDS
        deadlines = [clock + IDLE_SECONDS, self._cancelling.next_at]
        deadlines.append(self.pauses.until if is_paused else self.upkeep.next_at)
        deadlines.append(clock + self._claims.seconds_until_due)
        return max(0.0, min(deadlines) - clock)

    def _advance(self) -> None:
        self._cancelling.poll()
        if not self.pauses.is_paused:
            self._assigning.prepare_deferred()
            self._assigning.assign()
        self.upkeep.request_what_is_due()

    # What it shows

    def _show(self) -> None:
        """Take a snapshot, if the last one is old, and note in the journal whether it is paused."""
        clock = self._context.clock()
        state = "running" if self.pauses.reason is None else f"paused: {self.pauses.reason}"
        if state != self._shown_state:
            self._shown_state = state
            self._pending.write(self._journal.set_state, state=state)
        elif not self._is_changed or clock - self._snapshot_at < SNAPSHOT_SECONDS:
            return
        self._take_snapshot()

    def _take_snapshot(self) -> None:
        degraded = self._lifecycle.service_degraded
        engines = self._engines.snapshot(self._running)
        with suppress(ResourceUnavailable, JournalDamaged):
            self.snapshot = snapshot_of(self._journal, engines, self.pauses.reason, degraded)
            self._snapshot_at, self._is_changed = self._context.clock(), False
