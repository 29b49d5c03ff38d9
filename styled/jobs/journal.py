"""The journal: every job and its state, in one SQLite file that survives a power cut.

It is the only hand-off between arriving and working. Writes are durable when a method
returns (WAL with full synchronisation), and every method is one transaction.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from styled.jobs.job import WAITING, Arrival, Job, JobState
from styled.jobs.journal_notes import JournalNotes, text_in_journal, texts_as_json
from styled.jobs.journal_queries import COLUMNS, LONGEST_WAIT_SECONDS, NEXT_TO_CLAIM, job_of
from styled.jobs.journal_schema import open_database, open_existing_database


class Journal(JournalNotes):
    """All jobs. Safe to use from several threads; other processes may read along."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal at `path`, making it where there is none.

        Raises:
            JournalDamaged, ResourceUnavailable: as `open_database`.
        """
        return cls(open_database(path))

    @classmethod
    def open_for_requests(cls, path: Path) -> Self:
        """Open an existing journal, which a daemon may be using, to ask something of it.

        Raises:
            JournalDamaged, ResourceUnavailable: as `open_existing_database`.
        """
        return cls(open_existing_database(path, read_only=False))

    # Arriving

    def submit(self, arrivals: Iterable[Arrival], now: float) -> int:
        """Queue a job for each style of each arrival that is not known yet; return how many."""
        with self.transaction() as cursor:
            cursor.executemany(_SUBMIT, _rows(arrivals, now))
            return max(cursor.rowcount, 0)

    # Working

    def recover(self, *, is_blameless: bool = False) -> list[Job]:
        """Return to the queue what a dead process was working on; return those jobs.

        Any of several may have killed it: all are suspects, and get their attempt back. One that
        was alone keeps it, and is a suspect too.

        Args:
            is_blameless: The process is known to have died of something else.
        """
        with self.transaction() as cursor:
            interrupted = self._jobs("state = 'running'")
            is_clear = len(interrupted) == 1 and not is_blameless
            cursor.execute(
                "UPDATE jobs SET state = 'queued', phase = NULL, attempts = attempts - ?,"
                " is_suspect = is_suspect OR ? WHERE state = 'running'",
                (0 if is_clear else 1, not is_blameless),
            )
        return interrupted

    def claim(self, now: float, *, is_alone: bool = True) -> Job | None:
        """Take the oldest job that is due, counting an attempt; None where nothing is due.

        Args:
            now: Unix time.
            is_alone: Whether nothing else is being done: else a suspect is not taken, nor is
                anything that comes after it.
        """
        with self.transaction() as cursor:
            cursor.execute(
                "UPDATE jobs SET state = 'running', phase = 'preparing', attempts = attempts + 1,"
                " fraction = 0, progress = NULL, started_at = ?"
                f" WHERE seq = ({NEXT_TO_CLAIM}) AND (? OR NOT is_suspect) RETURNING {COLUMNS}",
                (now, now, now + LONGEST_WAIT_SECONDS, is_alone),
            )
            row = cursor.fetchone()
        return None if row is None else job_of(row)

    def requeue(
        self,
        job: Job,
        *,
        reason: str | None = None,
        failure: str | None = None,
        remedies: Sequence[str] = (),
        not_before: float = 0.0,
        attempt_counts: bool,
    ) -> None:
        """Return a claimed job to the queue; one that has ended stays as it is.

        Args:
            job: Claimed.
            reason: Why it has to wait, in one sentence.
            failure: The class of the reason.
            remedies: What can be done about it.
            not_before: When to try again.
            attempt_counts: False where the job is not to blame: a stop, a full disk.
        """
        self._execute(
            "UPDATE jobs SET state = 'queued', phase = NULL, reason = ?, failure = ?, remedies = ?,"
            " not_before = ?, attempts = attempts - ? WHERE id = ? AND state = 'running'",
            (
                text_in_journal(reason),
                failure,
                texts_as_json(remedies),
                not_before,
                0 if attempt_counts else 1,
                job.id,
            ),
        )

    def postpone_style(
        self, style: str, *, reason: str, remedies: Sequence[str], not_before: float
    ) -> None:
        """Have all queued jobs of a style wait: one by one they would be claimed in vain."""
        self._execute(
            "UPDATE jobs SET reason = ?, failure = ?, remedies = ?, not_before = ?"
            " WHERE state = 'queued' AND style = ? AND NOT cancel_requested",
            (text_in_journal(reason), WAITING, texts_as_json(remedies), not_before, style),
        )

    def release_style(self, style: str) -> None:
        """Have the jobs of a style tried at once that wait for something to be mended."""
        self._execute(
            "UPDATE jobs SET not_before = 0 WHERE state = 'queued' AND style = ? AND failure = ?",
            (style, WAITING),
        )

    def request_cancel(self, job: Job) -> bool:
        """Ask whoever works on the queue to cancel a job; return whether it has not ended yet."""
        with self.transaction() as cursor:
            cursor.execute(
                "UPDATE jobs SET cancel_requested = 1"
                " WHERE id = ? AND state IN ('queued', 'running')",
                (job.id,),
            )
            return cursor.rowcount > 0

    def finish(
        self,
        job: Job,
        state: JobState,
        now: float,
        *,
        reason: str | None = None,
        failure: str | None = None,
        remedies: Sequence[str] = (),
    ) -> None:
        """End a job as done, rejected or cancelled, after `job.attempts` attempts."""
        self._execute(
            "UPDATE jobs SET state = ?, phase = NULL, finished_at = ?, attempts = ?, reason = ?,"
            " failure = ?, remedies = ?,"
            " fraction = CASE ? WHEN 'done' THEN 1.0 ELSE fraction END WHERE id = ?",
            (
                state,
                now,
                job.attempts,
                text_in_journal(reason),
                failure,
                texts_as_json(remedies),
                state,
                job.id,
            ),
        )

    def prune(self, *, before: float, keep: int) -> int:
        """Forget finished jobs whose input has left the inbox; return how many.

        Args:
            before: Unix time; what has ended earlier is forgotten.
            keep: How many of the others are remembered, the latest ones.
        """
        with self.transaction() as cursor:
            cursor.execute(
                "DELETE FROM jobs WHERE NOT in_inbox AND finished_at IS NOT NULL AND"
                " (finished_at < ? OR seq NOT IN (SELECT seq FROM jobs WHERE NOT in_inbox"
                " AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?))",
                (before, keep),
            )
            return max(cursor.rowcount, 0)


_SUBMIT = (
    "INSERT OR IGNORE INTO jobs (id, input, size, mtime_ns, style, destination, submitted_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


def _rows(arrivals: Iterable[Arrival], now: float) -> list[tuple[object, ...]]:
    return [
        (uuid.uuid4().hex[:12], os.fsencode(arrival.path), arrival.size, str(arrival.mtime_ns),
         style, os.fsencode(destination), now)
        for arrival in arrivals
        for style, destination in arrival.destinations.items()
    ]  # fmt: skip
