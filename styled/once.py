"""Decides when `styled once` ends, and lists the inputs that it could not process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from styled.files import readable
from styled.intake.intake import Intake
from styled.journal.job import BLOCKED, JobState
from styled.journal.journal import Journal

BLOCKED_SECONDS = 15.0
"""How long to wait while all jobs are waiting for a retry: each has been retried by then."""

IMMEDIATE_FAILURE_SECONDS = 3.0
"""A job that runs for longer did not fail immediately, as one with an unreadable input does."""


@dataclass(frozen=True, slots=True)
class Unprocessed:
    """An input or a folder that could not be processed.

    Attributes:
        path: In the inbox.
        reason: Why, in one sentence.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class OnceResult:
    """The result of `styled once`.

    Attributes:
        rejected: Number of rejected inputs.
        unprocessed: Inputs and folders that could not be processed.
    """

    rejected: int
    unprocessed: Sequence[Unprocessed]


class ProgressTimeout:
    """Decides when waiting for blocked jobs or incomplete files is no longer useful."""

    def __init__(
        self,
        journal: Journal,
        grace_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Wait `grace_seconds` longer for incomplete files than for jobs that wait for a retry.

        Args:
            journal: Read for the state of jobs.
            grace_seconds: Grace period of files with incomplete content.
            clock: Monotonic seconds.
            now: Unix time.
        """
        self._journal = journal
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._now = now
        self._blocked_since: float | None = None

    def has_expired(self, *, may_settle: bool) -> bool:
        """Return whether there was no progress for long enough; called several times a second.

        Args:
            may_settle: Whether another file may settle when its grace period ends.
        """
        if self._makes_progress():
            self._blocked_since = None
            return False
        now = self._clock()
        if self._blocked_since is None:
            self._blocked_since = now
        # A truncated file is accepted after its grace period; an open file may stay open for hours.
        limit = BLOCKED_SECONDS + (self._grace_seconds if may_settle else 0.0)
        return now - self._blocked_since >= limit

    def _makes_progress(self) -> bool:
        for job in self._journal.in_state(JobState.RUNNING, limit=-1):
            # A retried job may fail again, however long it has been running.
            is_new = job.failure != BLOCKED
            if job.fraction > 0 or (
                is_new and self._now() - (job.started_at or 0.0) > IMMEDIATE_FAILURE_SECONDS
            ):
                return True
        if self._journal.get_state().get("activity", "").startswith("paused"):
            return False
        return self._journal.has_work()


def unprocessed_inputs(inbox: Path, journal: Journal, intake: Intake) -> Iterator[Unprocessed]:
    """Yield the inputs and folders that were not processed, with the reasons."""
    state = journal.get_state().get("activity", "")
    for job in journal.in_state(JobState.QUEUED, JobState.RUNNING, limit=-1):
        reason = state if state.startswith("paused") else job.reason
        yield Unprocessed(
            readable(inbox / job.input), reason or "it was still in the queue at the end"
        )
    for path, reason in intake.not_taken():
        yield Unprocessed(readable(inbox / path), reason)
