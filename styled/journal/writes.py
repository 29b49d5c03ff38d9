"""Journal writes other than changes of a job's state: progress, files, and the daemon's state."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from styled.degradation import Degradation
from styled.errors import JournalDamaged, ResourceUnavailable, StyledError
from styled.files import readable
from styled.journal.job import BLOCKED, Job, JobProgress, Phase
from styled.journal.queries import JournalReader
from styled.journal.schema import sqlite_errors


@dataclass(slots=True)
class _Write:
    """A statement that a thread is waiting to be committed."""

    statement: str
    values: tuple[object, ...]
    is_done: bool = False
    error: StyledError | None = None


class JournalWrites(JournalReader):
    """Writes the progress and files of jobs, and the state of the daemon. Thread-safe."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use `Journal.open` instead."""
        super().__init__(connection)
        self._waiting: deque[_Write] = deque()

    # Running jobs

    def set_phase(self, job: Job, phase: Phase, engine: str | None = None) -> None:
        """Store the phase of a running job and, if given, the engine that paints it."""
        self._execute(
            "UPDATE jobs SET phase = ?, engine = coalesce(?, engine)"
            " WHERE id = ? AND state = 'running'",
            (phase, engine, job.id),
        )

    def update_progress(self, job: Job, progress: JobProgress) -> None:
        """Store the progress of a running job."""
        self._execute(
            "UPDATE jobs SET fraction = ?, progress = ? WHERE id = ? AND state = 'running'",
            (progress.fraction, json.dumps(asdict(progress)), job.id),
        )

    def set_degraded(self, job: Job, degraded: Iterable[Degradation]) -> None:
        """Store the degradations of a job's result."""
        self._execute(
            "UPDATE jobs SET degraded = ? WHERE id = ?", (degradations_as_json(degraded), job.id)
        )

    # Queued jobs

    def postpone_style(
        self, style: str, *, reason: str, remedies: Sequence[str], not_before: float
    ) -> None:
        """Postpone all queued jobs of a style: each of them would fail in the same way."""
        self._execute(
            "UPDATE jobs SET reason = ?, failure = ?, remedies = ?, not_before = ?"
            " WHERE state = 'queued' AND style = ? AND NOT cancel_requested",
            (text_in_journal(reason), BLOCKED, texts_as_json(remedies), not_before, style),
        )

    def unblock_style(self, style: str) -> None:
        """Retry the jobs of a style at once that wait until a problem is fixed."""
        self._execute(
            "UPDATE jobs SET not_before = 0 WHERE state = 'queued' AND style = ? AND failure = ?",
            (style, BLOCKED),
        )

    # Ended jobs

    def mark_in_gallery(self, job_ids: Iterable[str]) -> None:
        """Record that the gallery shows these jobs."""
        with self.transaction() as cursor:
            cursor.executemany(
                "UPDATE jobs SET in_gallery = 1 WHERE id = ?", [(job_id,) for job_id in job_ids]
            )

    def mark_hook_run(self, job: Job) -> None:
        """Record that the hook of an ended job has run."""
        self._execute("UPDATE jobs SET hook_run = 1 WHERE id = ?", (job.id,))

    def skip_hooks(self) -> None:
        """Record that no hook is to be run for the jobs that have ended so far."""
        self._execute("UPDATE jobs SET hook_run = 1 WHERE NOT hook_run AND finished_at IS NOT NULL")

    # Files of jobs

    def reserve_result(
        self, job: Job, result: str, sha256: str, input_sha256: str,
        degraded: Iterable[Degradation] = (),
    ) -> None:  # fmt: skip
        """Store the path and hashes of a result before it is published.

        Args:
            job: The job that is being published.
            result: Path of the result, relative to the outbox.
            sha256: Of the result.
            input_sha256: Of the photo's bytes that were read.
            degraded: The degradations of the result.
        """
        self._execute(
            "UPDATE jobs SET result = ?, result_sha256 = ?, input_sha256 = ?, degraded = ?"
            " WHERE id = ?",
            (os.fsencode(result), sha256, input_sha256, degradations_as_json(degraded), job.id),
        )

    def reserve_original(self, job: Job, original: Path) -> None:
        """Store the path that an original will be moved to, before it is moved."""
        self._execute("UPDATE jobs SET original = ? WHERE id = ?", (os.fsencode(original), job.id))

    def mark_input_gone(self, job: Job) -> None:
        """Record that an input has left the inbox: the same file may be submitted again."""
        self._execute(
            "UPDATE jobs SET in_inbox = 0, is_released = 1"
            " WHERE in_inbox AND input = ? AND size = ? AND mtime_ns = ?",
            (os.fsencode(job.input), job.size, str(job.mtime_ns)),
        )

    def mark_released(self, job: Job) -> None:
        """Record that a copy of an input is where it belongs, although it stays in the inbox."""
        self._execute("UPDATE jobs SET is_released = 1 WHERE id = ?", (job.id,))

    # The daemon

    def set_state(self, **state: str) -> None:
        """Store key-value pairs about the running daemon, for `styled status`."""
        with self.transaction() as cursor:
            cursor.executemany(
                "INSERT INTO daemon_state VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [(key, readable(value)) for key, value in state.items()],
            )

    # SQLite

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        """Execute one statement and commit it.

        Threads that wait while another thread commits share the next commit, because each commit
        waits for the disk.
        """
        write = _Write(statement, values)
        self._waiting.append(write)
        with self._lock:
            if self._connection.in_transaction:  # of this thread: the statement joins it
                self._waiting.remove(write)
                self._connection.execute(statement, values)
            elif not write.is_done:
                self._write_all_waiting()
        if write.error is not None:
            raise write.error

    def _write_all_waiting(self) -> None:
        batch: list[_Write] = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        try:
            with self.transaction() as cursor:
                for write in batch:
                    cursor.execute(write.statement, write.values)
        except (ResourceUnavailable, JournalDamaged) as error:
            for write in batch:
                write.error = error
        for write in batch:
            write.is_done = True

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Cursor]:
        """Commit all writes within the context together, or roll all of them back.

        A transaction inside another one of the same thread becomes part of the outer one.

        Raises:
            JournalDamaged, ResourceUnavailable: as `sqlite_errors`.
        """
        with self._lock, sqlite_errors():
            cursor = self._connection.cursor()
            is_nested = self._connection.in_transaction
            if is_nested:
                yield cursor
                return
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise


def degradations_as_json(degraded: Iterable[Degradation]) -> str:
    """Return degradations as JSON, as stored in the journal."""
    return json.dumps([asdict(replace(d, message=readable(d.message))) for d in degraded])


def texts_as_json(texts: Iterable[str]) -> str:
    """Return sentences as JSON, as stored in the journal."""
    return json.dumps([readable(text) for text in texts])


def text_in_journal(text: str | None) -> str | None:
    """Return a sentence on one line, with bytes of file names that are not UTF-8 escaped."""
    return None if text is None else readable(" ".join(map(str.strip, text.splitlines())))
