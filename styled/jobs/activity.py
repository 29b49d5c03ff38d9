"""Reports what the queue is doing: a snapshot for other threads, a line in the journal."""

from __future__ import annotations

import math
from contextlib import suppress

from styled.errors import JournalDamaged, ResourceUnavailable
from styled.job_io.io_context import IoContext
from styled.jobs.engines import Engines
from styled.jobs.lifecycle import Lifecycle
from styled.jobs.pause import Pauses
from styled.jobs.pending_effects import PendingEffects
from styled.jobs.requested_pause import RequestedPause
from styled.jobs.running import RunningJobs
from styled.jobs.snapshot import QueueSnapshot
from styled.journal.job import JobState
from styled.journal.pause_request import PAUSE_REQUEST_REASON

SNAPSHOT_SECONDS = 2.0
"""Minimum interval between snapshots."""


class ActivityReporter:
    """Keeps the snapshot of the queue, and the journal's record of whether it is paused.

    Attributes:
        snapshot: State of the queue and its engines; replaced, never changed.
        reported: The activity that the journal has: `running`, or `paused: ` and the reason.
        is_changed: Whether anything may have changed since the last snapshot.
    """

    def __init__(
        self,
        context: IoContext,
        running: RunningJobs,
        engines: Engines,
        lifecycle: Lifecycle,
        pauses: Pauses,
        requested_pause: RequestedPause,
        pending: PendingEffects,
    ) -> None:
        """Report the state of these objects."""
        self._context = context
        self._journal = context.journal
        self._running = running
        self._engines = engines
        self._lifecycle = lifecycle
        self._pauses = pauses
        self._requested_pause = requested_pause
        self._pending = pending
        self._snapshot_at = -math.inf
        self.reported = "running"
        self.is_changed = True
        self.snapshot = QueueSnapshot(engines.snapshot(running))

    def report(self) -> None:
        """Take a snapshot if the last one is old; write to the journal whether it is paused."""
        reason = self._paused_reason
        activity = "running" if reason is None else f"paused: {reason}"
        if activity != self.reported:
            self.reported = activity
            self._pending.write(self._journal.set_state, activity=activity)
        elif not self.is_changed or self._context.clock() - self._snapshot_at < SNAPSHOT_SECONDS:
            return
        self.take_snapshot()

    def take_snapshot(self) -> None:
        """Replace the snapshot, if the journal can be read."""
        degraded = self._lifecycle.service.all()
        engines = self._engines.snapshot(self._running)
        with suppress(ResourceUnavailable, JournalDamaged):
            self.snapshot = QueueSnapshot(
                engines,
                self._paused_reason,
                self._journal.unfinished_by_style(),
                self._journal.oldest_unfinished(),
                self._journal.last_finished(JobState.DONE),
                degraded,
            )
            self._snapshot_at, self.is_changed = self._context.clock(), False

    @property
    def _paused_reason(self) -> str | None:
        """Why the queue is paused; None: it is not."""
        if self._pauses.reason is not None or not self._requested_pause.is_active:
            return self._pauses.reason
        return PAUSE_REQUEST_REASON
