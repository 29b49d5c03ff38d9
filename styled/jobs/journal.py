"""The journal: every job and its state, in one SQLite file that survives a power cut.

It is the only hand-off between arriving and working. Writes are durable when a method
returns (WAL with full synchronisation), and every method is one transaction.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

from styled.degradation import Degradation
from styled.files import readable
from styled.jobs.database import open_database, open_existing_database, sqlite_errors
from styled.jobs.job import WAITING, Arrival, Job, JobProgress, JobState, Published
from styled.jobs.looking import (
    COLUMNS,
    LONGEST_WAIT_SECONDS,
    NEXT_TO_CLAIM,
    JournalReader,
    job_of,
)


class Journal(JournalReader):
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
        with self._transaction() as cursor:
            cursor.executemany(_SUBMIT, _rows(arrivals, now))
            return max(cursor.rowcount, 0)

    # Working

    def recover(self, *, attempt_counts: bool = True) -> list[Job]:
        """Turn jobs that a dead process left `running` back into `queued`; return them."""
        interrupted = self._jobs("state = 'running'")
        self._execute(
            "UPDATE jobs SET state = 'queued', attempts = attempts - ? WHERE state = 'running'",
            (0 if attempt_counts else 1,),
        )
        return interrupted

    def claim(self, now: float) -> Job | None:
        """Take the oldest job that is due, counting an attempt; None where nothing is due."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, fraction = 0,"
                f" progress = NULL, started_at = ? WHERE seq = ({NEXT_TO_CLAIM})"
                f" RETURNING {COLUMNS}",
                (now, now, now + LONGEST_WAIT_SECONDS),
            )
            row = cursor.fetchone()
        return None if row is None else job_of(row)

    def put_back(
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
            "UPDATE jobs SET state = 'queued', reason = ?, failure = ?, remedies = ?,"
            " not_before = ?, attempts = attempts - ? WHERE id = ? AND state = 'running'",
            (
                _text(reason),
                failure,
                _json(remedies),
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
            (_text(reason), WAITING, _json(remedies), not_before, style),
        )

    def release_style(self, style: str) -> None:
        """Have the jobs of a style tried at once that wait for something to be mended."""
        self._execute(
            "UPDATE jobs SET not_before = 0 WHERE state = 'queued' AND style = ? AND failure = ?",
            (style, WAITING),
        )

    def note_progress(self, job: Job, progress: JobProgress) -> bool:
        """Remember how far a running job is; return whether it is to be cancelled."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE jobs SET fraction = ?, progress = ? WHERE id = ?"
                " RETURNING cancel_requested",
                (progress.fraction, json.dumps(asdict(progress)), job.id),
            )
            row = cursor.fetchone()
        return row is not None and bool(row[0])

    def request_cancel(self, job: Job) -> bool:
        """Ask whoever works on the queue to cancel a job; return whether it has not ended yet."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE jobs SET cancel_requested = 1"
                " WHERE id = ? AND state IN ('queued', 'running')",
                (job.id,),
            )
            return cursor.rowcount > 0

    def reserve_result(self, job: Job, result: str, sha256: str, input_sha256: str) -> None:
        """Remember what was read, and where its result will be published, before it is."""
        self._execute(
            "UPDATE jobs SET result = ?, result_sha256 = ?, input_sha256 = ? WHERE id = ?",
            (os.fsencode(result), sha256, input_sha256, job.id),
        )

    def reserve_original(self, job: Job, original: Path) -> None:
        """Remember where an original will be put, before it is."""
        self._execute("UPDATE jobs SET original = ? WHERE id = ?", (os.fsencode(original), job.id))

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
            "UPDATE jobs SET state = ?, finished_at = ?, attempts = ?, reason = ?, failure = ?,"
            " remedies = ?, fraction = CASE ? WHEN 'done' THEN 1.0 ELSE fraction END WHERE id = ?",
            (state, now, job.attempts, _text(reason), failure, _json(remedies), state, job.id),
        )

    def set_degraded(self, job: Job, degraded: Iterable[Degradation]) -> None:
        """Remember in which ways a job's result is less than what was asked for."""
        self._execute(
            "UPDATE jobs SET degraded = ? WHERE id = ?", (_degradations(degraded), job.id)
        )

    def note_hanging(self, job_ids: Iterable[str]) -> None:
        """Remember that the gallery shows what has become of these jobs."""
        with self._transaction() as cursor:
            cursor.executemany(
                "UPDATE jobs SET hanging = 1 WHERE id = ?", [(job_id,) for job_id in job_ids]
            )

    # Leaving

    def forget_input(self, job: Job) -> None:
        """Note that the input has left the inbox: the same file may be dropped again."""
        self._execute(
            "UPDATE jobs SET in_inbox = 0"
            " WHERE in_inbox AND input = ? AND size = ? AND mtime_ns = ?",
            (os.fsencode(job.input), job.size, str(job.mtime_ns)),
        )

    def prune(self, *, before: float, keep: int) -> int:
        """Forget finished jobs whose input has left the inbox; return how many.

        Args:
            before: Unix time; what has ended earlier is forgotten.
            keep: How many of the others are remembered, the latest ones.
        """
        with self._transaction() as cursor:
            cursor.execute(
                "DELETE FROM jobs WHERE NOT in_inbox AND finished_at IS NOT NULL AND"
                " (finished_at < ? OR seq NOT IN (SELECT seq FROM jobs WHERE NOT in_inbox"
                " AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?))",
                (before, keep),
            )
            return max(cursor.rowcount, 0)

    def adopt(self, known: Iterable[tuple[Arrival, Sequence[Published]]], now: float) -> int:
        """Take up jobs that a lost journal knew to be done, whose inputs still lie there.

        All that an input is wanted for is entered at once: were its other styles missing, it
        would seem to be finished and leave the inbox.

        Returns:
            How many jobs that are done were not known yet.
        """
        adopted = 0
        with self._transaction() as cursor:
            for arrival, published in known:
                for done in published:
                    cursor.execute(
                        "INSERT OR IGNORE INTO jobs (id, input, size, mtime_ns, style,"
                        " destination, state, attempts, submitted_at, finished_at, result,"
                        " result_sha256, input_sha256, degraded, fraction, hanging)"
                        " VALUES (?, ?, ?, ?, ?, ?, 'done', 1, ?, ?, ?, ?, ?, ?, 1.0, 1)",
                        (done.job_id, os.fsencode(arrival.path), arrival.size,
                         str(arrival.mtime_ns), done.style,
                         os.fsencode(arrival.destinations[done.style]), now, now,
                         os.fsencode(done.result), done.result_sha256, done.input_sha256,
                         _degradations(done.degraded)),
                    )  # fmt: skip
                    adopted += cursor.rowcount
                cursor.executemany(_SUBMIT, _rows([arrival], now))
        return adopted

    # About the daemon

    def write_daemon(self, **facts: str) -> None:
        """Remember facts about the running daemon, for `styled status`."""
        with self._transaction() as cursor:
            cursor.executemany(
                "INSERT INTO daemon VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [(key, readable(value)) for key, value in facts.items()],
            )

    # SQLite

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        with self._transaction() as cursor:
            cursor.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, sqlite_errors():
            cursor = self._connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise


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


def _degradations(degraded: Iterable[Degradation]) -> str:
    return json.dumps([asdict(replace(d, message=readable(d.message))) for d in degraded])


def _json(texts: Iterable[str]) -> str:
    return json.dumps([readable(text) for text in texts])


def _text(words: str | None) -> str | None:
    """Return a sentence on one line, as SQLite takes it: it may name files that are not UTF-8."""
    return None if words is None else readable(" ".join(map(str.strip, words.splitlines())))
