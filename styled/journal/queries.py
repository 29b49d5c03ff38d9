"""Queries of the journal: queued, running and finished jobs, and the daemon's state."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal, Self

from styled.errors import JournalDamaged
from styled.journal.job import BLOCKED, Job, JobState
from styled.journal.rows import COLUMNS, job_of
from styled.journal.schema import open_existing_database, sqlite_errors

_LAST_CHANGE = "coalesce(finished_at, started_at, submitted_at)"  # must match the index

PathColumn = Literal["input", "result", "original"]

MAX_WAIT_SECONDS = 3600.0
"""Upper limit of any retry delay: if a job seems to wait longer, the clock has been set back."""

NEXT_TO_CLAIM = (
    "SELECT seq FROM jobs WHERE state = 'queued' AND NOT cancel_requested"
    " AND (not_before <= ? OR not_before > ?) ORDER BY priority DESC, seq LIMIT 1"
)

FINISHED = (JobState.DONE, JobState.REJECTED, JobState.CANCELLED)


class JournalReader:
    """Read access to all jobs. Thread-safe."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use `open_read_only` instead."""
        self._connection = connection
        self._lock = threading.RLock()

    @classmethod
    def open_read_only(cls, path: Path) -> Self:
        """Open an existing journal, which a daemon may be using.

        Raises:
            JournalDamaged, ResourceUnavailable: as `open_existing_database`.
        """
        return cls(open_existing_database(path, read_only=True))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def job(self, job_id: str) -> Job | None:
        """Return the job with this id, None if there is none."""
        jobs = self._jobs("id = ?", (job_id,))
        return jobs[0] if jobs else None

    def counts(self) -> dict[JobState, int]:
        """Return the number of jobs in each state; states without jobs are left out."""
        with self._reading() as cursor:
            rows = cursor.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        return {JobState(state): count for state, count in rows}

    def count(self, state: JobState) -> int:
        """Return the number of jobs in a state."""
        return int(self._row("SELECT count(*) FROM jobs WHERE state = ?", (state,)) or 0)

    def has_work(self) -> bool:
        """Return whether any queued job does not wait until a problem is fixed."""
        return bool(
            self._row(
                "SELECT 1 FROM jobs WHERE state = 'queued'"
                " AND (failure IS NULL OR failure != ?) LIMIT 1",
                (BLOCKED,),
            )
        )

    def unfinished_ids(self) -> set[str]:
        """Return the ids of all queued and running jobs."""
        with self._reading() as cursor:
            rows = cursor.execute("SELECT id FROM jobs WHERE state IN ('queued', 'running')")
            return {job_id for (job_id,) in rows}

    def in_state(
        self,
        *states: JobState,
        limit: int,
        newest_first: bool = False,
        style: str | None = None,
    ) -> list[Job]:
        """Return jobs in any of the states, in the order of the queue or the newest first.

        Args:
            states: At least one.
            limit: Maximum number of jobs; -1: all.
            newest_first: Sort by the time when they ended, else started, else were submitted.
            style: Only jobs in this style.
        """
        order = f"{_LAST_CHANGE} DESC" if newest_first else "priority DESC, seq"
        style_clause = "" if style is None else " AND style = ?"
        # The index is sorted within one state, so the first `limit` jobs of each state are
        # selected, all in one statement: a job whose state changes meanwhile is returned once.
        one_state = f"SELECT seq FROM jobs WHERE state = ?{style_clause} ORDER BY {order} LIMIT ?"
        all_states = " UNION ALL ".join([f"SELECT seq FROM ({one_state})"] * len(states))
        values = ((state, *(() if style is None else (style,)), limit) for state in states)
        return self._jobs(
            f"seq IN ({all_states}) ORDER BY {order} LIMIT ?", (*chain(*values), limit)
        )

    def get_state(self) -> dict[str, str]:
        """Return the state of the daemon that `set_state` has stored."""
        with self._reading() as cursor:
            return dict(cursor.execute("SELECT key, value FROM daemon_state").fetchall())

    def next_to_claim(self, now: float) -> Job | None:
        """Return the job that `Journal.claim` would claim, None if none is due."""
        jobs = self._jobs(f"seq = ({NEXT_TO_CLAIM})", (now, now + MAX_WAIT_SECONDS))
        return jobs[0] if jobs else None

    def next_due(self) -> float | None:
        """Return the Unix time when the next queued job is due, None if none is queued."""
        return self._row(
            "SELECT min(not_before) FROM jobs WHERE state = 'queued' AND NOT cancel_requested"
        )

    def jobs_of_input(self, job: Job) -> list[Job]:
        """Return all jobs of the same input, `job` among them."""
        return self.jobs_of_file(job.input, job.size, job.mtime_ns)

    def jobs_of_file(self, path: str, size: int, mtime_ns: int) -> list[Job]:
        """Return the jobs of a file that is in the inbox now, the oldest first."""
        return self._jobs(
            "in_inbox AND input = ? AND size = ? AND mtime_ns = ? ORDER BY seq",
            (os.fsencode(path), size, str(mtime_ns)),
        )

    def has_jobs_of_file(self, path: str, size: int, mtime_ns: int) -> bool:
        """Return whether a file that is in the inbox now has a job, in whatever state."""
        return bool(
            self._row(
                "SELECT 1 FROM jobs"
                " WHERE in_inbox AND input = ? AND size = ? AND mtime_ns = ? LIMIT 1",
                (os.fsencode(path), size, str(mtime_ns)),
            )
        )

    def finished_in_inbox(self) -> list[Job]:
        """Return one finished job for each input in the inbox that may have to be released."""
        return self._jobs(
            "in_inbox AND state IN ('done', 'rejected', 'cancelled') GROUP BY input, size, mtime_ns"
        )

    def missing_from_gallery(self, limit: int) -> list[Job]:
        """Return ended jobs that the gallery does not show yet, in the order in which they ended.

        Rejected inputs are included once they were released: then they are at `original`.
        """
        return self._jobs(
            "NOT in_gallery AND finished_at IS NOT NULL"
            " AND (state = 'done' OR (is_released AND original IS NOT NULL))"
            " ORDER BY finished_at LIMIT ?",
            (limit,),
        )

    def missing_hooks(self, limit: int, not_after: float) -> list[Job]:
        """Return ended jobs whose hook has not run, in the order in which they ended.

        Rejected inputs are included once they were released, with their sidecars.

        Args:
            limit: Maximum number of jobs.
            not_after: Unix time; jobs that were rejected before it are included in any case.
        """
        return self._jobs(
            "NOT hook_run AND finished_at IS NOT NULL"
            " AND (state != 'rejected' OR (is_released AND original IS NOT NULL)"
            " OR finished_at < ?) ORDER BY finished_at, seq LIMIT ?",
            (not_after, limit),
        )

    def has_missing_hooks(self) -> bool:
        """Return whether a job has ended whose hook has not run."""
        return bool(self._jobs("NOT hook_run AND finished_at IS NOT NULL LIMIT 1"))

    def unfinished_by_style(self) -> dict[str, dict[JobState, int]]:
        """Return the number of queued and running jobs of each style that has any."""
        with self._reading() as cursor:
            rows = cursor.execute(
                "SELECT style, state, count(*) FROM jobs INDEXED BY jobs_unfinished"
                " WHERE state IN ('queued', 'running') GROUP BY style, state ORDER BY style"
            ).fetchall()
        counts: dict[str, dict[JobState, int]] = {}
        for style, state, count in rows:
            counts.setdefault(style, {})[JobState(state)] = count
        return counts

    def oldest_unfinished(self) -> float | None:
        """Return when the oldest queued or running job was submitted, None if there is none."""
        return self._row(
            "SELECT submitted_at FROM jobs INDEXED BY jobs_oldest"
            " WHERE state IN ('queued', 'running') ORDER BY submitted_at LIMIT 1"
        )

    def last_finished(self, state: JobState) -> float | None:
        """Return when the last job in `state` ended, None if there is none."""
        jobs = self.in_state(state, limit=1, newest_first=True)
        return jobs[0].finished_at if jobs else None

    def count_ahead(self, job: Job) -> int:
        """Return the number of running jobs, and of queued ones that come before a queued one."""
        jobs_before = self._row(
            "SELECT count(*) FROM jobs JOIN (SELECT priority AS own, seq AS own_seq FROM jobs"
            " WHERE id = ?) WHERE state = 'running' OR (state = 'queued'"
            " AND (priority > own OR (priority = own AND seq < own_seq)))",
            (job.id,),
        )
        return int(jobs_before or 0)

    def jobs_about(self, column: PathColumn, path: str) -> list[Job]:
        """Return the jobs that have this path in a column, the newest first."""
        return self._jobs(f"{column} = ? ORDER BY seq DESC", (os.fsencode(path),))

    def cancel_requests(self, limit: int = -1) -> list[Job]:
        """Return queued and running jobs with a cancel request, at most `limit`; -1: all."""
        return self._jobs(
            "cancel_requested AND state IN ('queued', 'running') ORDER BY seq LIMIT ?", (limit,)
        )

    def count_changes_by_others(self) -> int:
        """Return a number that changes when another process writes to the journal."""
        return int(self._row("PRAGMA data_version") or 0)

    # SQLite

    def _jobs(self, where: str, values: tuple[object, ...] = ()) -> list[Job]:
        with self._reading() as cursor:
            rows = cursor.execute(f"SELECT {COLUMNS} FROM jobs WHERE {where}", values).fetchall()
        try:
            return [job_of(row) for row in rows]
        except (ValueError, TypeError) as error:  # for instance text in place of a number
            raise JournalDamaged(
                f"the journal is damaged: {error}",
                "stop styled, move the journal away, and start it: it makes a new one of what "
                "lies in the inbox and the outbox",
            ) from error

    def _row(self, statement: str, values: tuple[object, ...] = ()) -> float | None:
        with self._reading() as cursor:
            row: tuple[float | None, ...] | None = cursor.execute(statement, values).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, sqlite_errors():
            yield self._connection.cursor()
