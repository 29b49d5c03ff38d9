"""The journal: every job and its state, in one SQLite file that survives a power cut.

The journal is the only hand-off between the intake and the scheduler. Every method is one
transaction, and its writes are durable when it returns (WAL, `synchronous = FULL`).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from styled.config import Priorities
from styled.journal.job import ON_REQUEST, Job, JobState, SettledInputProtocol
from styled.journal.queries import MAX_WAIT_SECONDS, NEXT_TO_CLAIM
from styled.journal.rows import COLUMNS, job_of
from styled.journal.schema import open_database, open_existing_database
from styled.journal.writes import JournalWrites, text_in_journal, texts_as_json


class Journal(JournalWrites):
    """All jobs. Thread-safe; other processes may read the file at the same time."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal at `path`, creating it if there is none.

        Raises:
            JournalDamaged, ResourceUnavailable: as `open_database`.
        """
        return cls(open_database(path))

    @classmethod
    def open_for_requests(cls, path: Path) -> Self:
        """Open an existing journal, which a daemon may be using, to write requests to it.

        Raises:
            JournalDamaged, ResourceUnavailable: as `open_existing_database`.
        """
        return cls(open_existing_database(path, read_only=False))

    # New jobs

    def submit(
        self,
        inputs: Iterable[SettledInputProtocol],
        now: float,
        priorities: Priorities | None = None,
    ) -> int:
        """Queue a job for each style of each input that has none yet.

        Args:
            inputs: Settled inputs with their styles.
            now: Unix time.
            priorities: Of styles and folders; None: all have the same.

        Returns:
            The number of new jobs.
        """
        with self.transaction() as cursor:
            cursor.executemany(_SUBMIT, _rows(inputs, now, priorities))
            return max(cursor.rowcount, 0)

    def set_priorities(self, priorities: Priorities) -> None:
        """Give queued jobs the priorities of a new configuration, except those put first."""
        with self.transaction() as cursor:
            rows = cursor.execute(
                "SELECT seq, input, style, priority FROM jobs"
                " WHERE state IN ('queued', 'running') AND priority < ?", (FIRST_PRIORITY,),
            ).fetchall()  # fmt: skip
            wanted = [
                (priorities.of(os.fsdecode(path), style), seq, priority)
                for seq, path, style, priority in rows
            ]
            cursor.executemany(
                "UPDATE jobs SET priority = ? WHERE seq = ?",
                [(new, seq) for new, seq, old in wanted if new != old],
            )

    def put_first(self, job: Job) -> bool:
        """Put a queued job before all others, also those put first before it.

        Returns:
            False if it is not queued.
        """
        with self.transaction() as cursor:
            cursor.execute(
                "UPDATE jobs SET priority ="
                " (SELECT max(?, 1 + max(priority)) FROM jobs WHERE state = 'queued')"
                " WHERE id = ? AND state = 'queued'",
                (FIRST_PRIORITY, job.id),
            )
            return cursor.rowcount > 0

    # Changes of state

    def recover(self, *, is_blameless: bool = False) -> list[Job]:
        """Requeue the jobs that a dead process was running, and return them.

        All of them become suspects. If there are several, any of them may have killed the process,
        so each gets its attempt back. The attempt of a job that was alone counts.

        Args:
            is_blameless: Whether the process is known to have died of another cause: then no job
                becomes a suspect, and each gets its attempt back.
        """
        with self.transaction() as cursor:
            interrupted = self._jobs("state = 'running'")
            attempt_counts = len(interrupted) == 1 and not is_blameless
            cursor.execute(
                "UPDATE jobs SET state = 'queued', phase = NULL, attempts = attempts - ?,"
                " is_suspect = is_suspect OR ? WHERE state = 'running'",
                (0 if attempt_counts else 1, not is_blameless),
            )
        return interrupted

    def claim(self, now: float, *, is_idle: bool = True) -> Job | None:
        """Claim the first job that is due and count an attempt; return None if none is due.

        That is the oldest one of the highest priority.

        Args:
            now: Unix time.
            is_idle: Whether no other job is running. Otherwise neither a suspect nor any job
                after it is claimed.
        """
        with self.transaction() as cursor:
            cursor.execute(
                "UPDATE jobs SET state = 'running', phase = 'preparing', attempts = attempts + 1,"
                " fraction = 0, progress = NULL, started_at = ?"
                f" WHERE seq = ({NEXT_TO_CLAIM}) AND (? OR NOT is_suspect) RETURNING {COLUMNS}",
                (now, now, now + MAX_WAIT_SECONDS, is_idle),
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
        """Return a claimed job to the queue; does nothing if it has ended.

        Args:
            job: A claimed job.
            reason: Why it has to wait, in one sentence.
            failure: The failure class.
            remedies: What to do about it.
            not_before: Unix time before which it is not claimed again.
            attempt_counts: False if the job is not to blame (a stop, a full disk): it gets its
                attempt back.
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

    def request_cancel(self, job: Job) -> bool:
        """Request that the daemon cancels a job; return False if the job has ended already."""
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
        """End a job as done, rejected or cancelled, after `job.attempts` attempts.

        The input of a job that was not cancelled on request, but for instance since its photo was
        moved away, becomes a new job if it is found again.
        """
        self._execute(
            "UPDATE jobs SET state = ?, phase = NULL, finished_at = ?, attempts = ?, reason = ?,"
            " failure = ?, remedies = ?, in_inbox = in_inbox AND NOT ?,"
            " fraction = CASE ? WHEN 'done' THEN 1.0 ELSE fraction END WHERE id = ?",
            (
                state,
                now,
                job.attempts,
                text_in_journal(reason),
                failure,
                texts_as_json(remedies),
                state is JobState.CANCELLED and failure != ON_REQUEST,
                state,
                job.id,
            ),
        )

    def prune(self, *, before: float, keep: int) -> int:
        """Delete old finished jobs whose input has left the inbox; return how many.

        Args:
            before: Unix time; jobs that ended earlier are deleted.
            keep: Maximum number of jobs that are kept; the oldest ones are deleted.
        """
        with self.transaction() as cursor:
            cursor.execute(
                "DELETE FROM jobs WHERE NOT in_inbox AND finished_at IS NOT NULL AND"
                " (finished_at < ? OR seq NOT IN (SELECT seq FROM jobs WHERE NOT in_inbox"
                " AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?))",
                (before, keep),
            )
            return max(cursor.rowcount, 0)


FIRST_PRIORITY = 1000
"""Of jobs that a person has put first; priorities in the configuration are lower."""

_SUBMIT = (
    "INSERT OR IGNORE INTO jobs"
    " (id, input, size, mtime_ns, style, destination, submitted_at, priority)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def _rows(
    inputs: Iterable[SettledInputProtocol], now: float, priorities: Priorities | None
) -> list[tuple[object, ...]]:
    return [
        (uuid.uuid4().hex[:12], os.fsencode(settled.path), settled.size, str(settled.mtime_ns),
         style, os.fsencode(destination), now,
         0 if priorities is None else priorities.of(settled.path, style))
        for settled in inputs
        for style, destination in settled.destinations.items()
    ]  # fmt: skip
