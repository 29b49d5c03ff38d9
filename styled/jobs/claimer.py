"""Decides which jobs are claimed, and when: just early enough that no engine has to wait."""

from __future__ import annotations

import math

from styled.job_io.io_context import IoContext
from styled.jobs.engines import Engines
from styled.jobs.pause import Pauses
from styled.jobs.requested_pause import RequestedPause
from styled.jobs.running import RunningJobs
from styled.journal.job import Job, Phase
from styled.journal.queries import MAX_WAIT_SECONDS


class Claimer:
    """Claims jobs, and knows when the next one may be claimed."""

    def __init__(
        self,
        context: IoContext,
        running: RunningJobs,
        engines: Engines,
        pauses: Pauses,
        requested_pause: RequestedPause,
    ) -> None:
        """Claim jobs for `engines`, except while the queue is paused."""
        self._requested_pause = requested_pause
        self._context = context
        self._journal = context.journal
        self._running = running
        self._engines = engines
        self._pauses = pauses
        self._due: float | None = None  # Unix time

    @property
    def room(self) -> int | None:
        """Number of jobs that may be claimed now; None: the queue is paused."""
        if self._pauses.is_paused:
            return None
        if self._requested_pause.is_active or self._running.is_exclusive:
            return 0
        return claimable(
            engines=self._engines.count,
            free_engines=self._engines.free_count,
            prefetched=len(self._running.in_phase(Phase.PREPARING, Phase.READY)),
        )

    def claim(self, room: int | None) -> list[Job]:
        """Claim up to `room` jobs; a suspect only while no other job runs.

        Raises:
            ResourceUnavailable: the journal can't be used.
        """
        claimed: list[Job] = []
        self._due = None
        # Not asked again: the journal may have been waited for until after the end of the pause.
        if room is None:
            self.defer_until_pause_ends()
        while len(claimed) < (room or 0):
            is_idle = not len(self._running) and not claimed
            job = self._journal.claim(self._context.now(), is_idle=is_idle)
            if job is None:
                due = self._journal.next_due()
                # A job that is due but was not claimed is a suspect: it waits until the running
                # jobs have ended.
                self._due = due if due is not None and due > self._context.now() else None
                break
            claimed.append(job)
            if job.is_suspect:
                break
        return claimed

    def defer_until_pause_ends(self) -> None:
        """Set the next claim to the end of the queue's pause."""
        self._due = self._context.now() + self._pauses.until - self._context.clock()

    @property
    def seconds_until_due(self) -> float:
        """Seconds until the next queued job may be claimed; infinity if there is none."""
        if self._due is None:
            return math.inf
        seconds = self._due - self._context.now()
        # No job is given a longer wait, so the system clock has been set back: claim now.
        return max(0.0, seconds) if seconds <= MAX_WAIT_SECONDS else 0.0


def claimable(*, engines: int, free_engines: int, prefetched: int) -> int:
    """Return how many jobs may be claimed: just early enough that no engine has to wait.

    One prefetched job for each engine suffices: each finds one when it becomes free. While an
    engine is free, one of them is about to be painted, so that one more may be claimed.

    Args:
        engines: Number of engines, whether free or busy.
        free_engines: Number of free engines.
        prefetched: Number of claimed jobs that are not painted yet: in preparation or ready.
    """
    return max(0, engines + (1 if free_engines else 0) - prefetched) if engines else 0
