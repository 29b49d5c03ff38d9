"""Which jobs are claimed, and when: just early enough that no engine has to wait."""

from __future__ import annotations

import math

from styled.jobs.engines import Engines
from styled.jobs.io_context import IoContext
from styled.jobs.job import Job, Phase
from styled.jobs.journal_queries import LONGEST_WAIT_SECONDS
from styled.jobs.pause import Pauses
from styled.jobs.prefetch import may_claim
from styled.jobs.running import RunningJobs


class Claims:
    """Claims jobs, and knows when the next one may be claimed."""

    def __init__(
        self, context: IoContext, running: RunningJobs, engines: Engines, pauses: Pauses
    ) -> None:
        """Claim for `engines`, unless the queue is paused."""
        self._context = context
        self._journal = context.journal
        self._running = running
        self._engines = engines
        self._pauses = pauses
        self._due: float | None = None  # Unix time

    def claim(self) -> list[Job]:
        """Claim jobs as far as engines will need them soon. Suspects are claimed alone.

        Raises:
            ResourceUnavailable: the journal can't be used.
        """
        claimed: list[Job] = []
        self._due = None
        if self._pauses.is_paused:
            self.wait_for_the_pause()
            return claimed
        if self._running.is_exclusive:
            return claimed
        free = self._engines.free_count
        waiting = len(self._running.in_phase(Phase.PREPARING, Phase.READY))
        while may_claim(engines=self._engines.count, free=free, waiting=waiting + len(claimed)):
            is_alone = not len(self._running) and not claimed
            job = self._journal.claim(self._context.now(), is_alone=is_alone)
            if job is None:
                due = self._journal.next_due()
                # What is due and was not claimed is a suspect: it waits for others to end.
                self._due = due if due is not None and due > self._context.now() else None
                break
            claimed.append(job)
            if job.is_suspect:
                break
        return claimed

    def wait_for_the_pause(self) -> None:
        """Claim again once the pause of the queue is over."""
        self._due = self._context.now() + self._pauses.until - self._context.clock()

    @property
    def seconds_until_due(self) -> float:
        """After how long something may be claimed, as far as it is known."""
        if self._due is None:
            return math.inf
        seconds = self._due - self._context.now()
        # Nothing ever waits for longer: the clock has been set back.
        return max(0.0, seconds) if seconds <= LONGEST_WAIT_SECONDS else 0.0
