"""When `styled once` has done what can be done, and what it then leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from styled.files import readable
from styled.intake.intake import Intake
from styled.jobs.job import WAITING, JobState
from styled.jobs.journal import Journal

BLOCKED_SECONDS = 15.0
"""How long nothing but waiting jobs may be left: each has been tried again by then."""

BEGINNING_SECONDS = 3.0
"""A job that has been running for longer did not fail at once, as one does that can't be read."""


@dataclass(frozen=True, slots=True)
class Left:
    """An input, or a folder, that could not be worked through.

    Attributes:
        path: In the inbox.
        reason: Why, in one sentence.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class OnceResult:
    """What became of the inbox.

    Attributes:
        rejected: How many inputs were rejected.
        left: What could not be worked through.
    """

    rejected: int
    left: Sequence[Left]


class Patience:
    """Tells when waiting any longer is of no use."""

    def __init__(
        self,
        journal: Journal,
        grace_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Wait for unfinished files for `grace_seconds`, and for jobs that wait for less."""
        self._journal = journal
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._now = now
        self._blocked_since: float | None = None

    def is_over(self, *, may_settle: bool) -> bool:
        """Tell whether nothing has moved for long enough; called several times a second.

        Args:
            may_settle: Whether a file in the inbox is still to be judged by what is in it.
        """
        if self._is_getting_on():
            self._blocked_since = None
            return False
        now = self._clock()
        if self._blocked_since is None:
            self._blocked_since = now
        # A file that is cut off is judged after its grace; one that is open may stay so for hours.
        patience = BLOCKED_SECONDS + (self._grace_seconds if may_settle else 0.0)
        return now - self._blocked_since >= patience

    def _is_getting_on(self) -> bool:
        for job in self._journal.in_state(JobState.RUNNING, limit=-1):
            # One that has waited may fail again, however long it takes to.
            is_new = job.failure != WAITING
            if job.fraction > 0 or (
                is_new and self._now() - (job.started_at or 0.0) > BEGINNING_SECONDS
            ):
                return True
        if self._journal.get_state().get("state", "").startswith("paused"):
            return False
        return self._journal.has_work()


def left_over(inbox: Path, journal: Journal, intake: Intake) -> Iterator[Left]:
    """Yield what is not worked through, and why."""
    state = journal.get_state().get("state", "")
    for job in journal.in_state(JobState.QUEUED, JobState.RUNNING, limit=-1):
        reason = state if state.startswith("paused") else job.reason
        yield Left(readable(inbox / job.input), reason or "its turn did not come")
    for path, reason in intake.not_taken():
        yield Left(readable(inbox / path), reason)
