"""What is written into the journal besides the states of jobs."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from styled.degradation import Degradation
from styled.errors import JournalDamaged, ResourceUnavailable, StyledError
from styled.files import readable
from styled.jobs.job import Job, JobProgress, Phase
from styled.jobs.journal_queries import JournalReader
from styled.jobs.journal_schema import sqlite_errors


@dataclass(slots=True)
class _Write:
    """A statement that a thread waits for."""

    statement: str
    values: tuple[object, ...]
    is_done: bool = False
    error: StyledError | None = None


class JournalNotes(JournalReader):
    """How far jobs are, where their files are, and how the daemon is."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use `Journal.open` instead."""
        super().__init__(connection)
        self._waiting: deque[_Write] = deque()

    # Running jobs

    def set_phase(self, job: Job, phase: Phase, engine: str | None = None) -> None:
        """Remember where a running job is, and which engine paints it."""
        self._execute(
            "UPDATE jobs SET phase = ?, engine = coalesce(?, engine)"
            " WHERE id = ? AND state = 'running'",
            (phase, engine, job.id),
        )

    def update_progress(self, job: Job, progress: JobProgress) -> None:
        """Remember how far a running job is."""
        self._execute(
            "UPDATE jobs SET fraction = ?, progress = ? WHERE id = ? AND state = 'running'",
            (progress.fraction, json.dumps(asdict(progress)), job.id),
        )

    def set_degraded(self, job: Job, degraded: Iterable[Degradation]) -> None:
        """Remember in which ways a job's result is less than what was asked for."""
        self._execute(
            "UPDATE jobs SET degraded = ? WHERE id = ?", (degradations_as_json(degraded), job.id)
        )

    def mark_in_gallery(self, job_ids: Iterable[str]) -> None:
        """Remember that the gallery shows what has become of these jobs."""
        with self.transaction() as cursor:
            cursor.executemany(
                "UPDATE jobs SET in_gallery = 1 WHERE id = ?", [(job_id,) for job_id in job_ids]
            )

    # Their files

    def reserve_result(
        self, job: Job, result: str, sha256: str, input_sha256: str,
        degraded: Iterable[Degradation] = (),
    ) -> None:  # fmt: skip
        """Remember what was read, and where its result will be published, before it is.

        Args:
            job: Is being published.
            result: Relative to the outbox.
            sha256: Of the result.
            input_sha256: Of the photo's bytes that were read.
            degraded: In which ways the result is less than what was asked for.
        """
        self._execute(
            "UPDATE jobs SET result = ?, result_sha256 = ?, input_sha256 = ?, degraded = ?"
            " WHERE id = ?",
            (os.fsencode(result), sha256, input_sha256, degradations_as_json(degraded), job.id),
        )

    def reserve_original(self, job: Job, original: Path) -> None:
        """Remember where an original will be put, before it is."""
        self._execute("UPDATE jobs SET original = ? WHERE id = ?", (os.fsencode(original), job.id))

    def mark_input_gone(self, job: Job) -> None:
        """Note that the input has left the inbox: the same file may be dropped again."""
        self._execute(
            "UPDATE jobs SET in_inbox = 0"
            " WHERE in_inbox AND input = ? AND size = ? AND mtime_ns = ?",
            (os.fsencode(job.input), job.size, str(job.mtime_ns)),
        )

    # The daemon

    def set_state(self, **state: str) -> None:
        """Remember something about the running daemon, for `styled status`."""
        with self.transaction() as cursor:
            cursor.executemany(
                "INSERT INTO daemon_state VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [(key, readable(value)) for key, value in state.items()],
            )

    # SQLite

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        """Execute one statement, durably.

        Threads that wait while another commits share the next commit: each waits for the disk.
        """
        write = _Write(statement, values)
        self._waiting.append(write)
        with self._lock:
            if self._connection.in_transaction:  # of this thread: it becomes a part of that one
                self._waiting.remove(write)
                self._connection.execute(statement, values)
            elif not write.is_done:
                self._write_all_that_wait()
        if write.error is not None:
            raise write.error

    def _write_all_that_wait(self) -> None:
        together: list[_Write] = []
        while self._waiting:
            together.append(self._waiting.popleft())
        try:
            with self.transaction() as cursor:
                for write in together:
                    cursor.execute(write.statement, write.values)
        except (ResourceUnavailable, JournalDamaged) as error:
            for write in together:
                write.error = error
        for write in together:
            write.is_done = True

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Cursor]:
        """Make all writes within the context durable together, or none of them.

        Within another transaction of the same thread it is a part of that one.

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
    """Return degradations as the journal keeps them."""
    return json.dumps([asdict(replace(d, message=readable(d.message))) for d in degraded])


def texts_as_json(texts: Iterable[str]) -> str:
    """Return sentences as the journal keeps them."""
    return json.dumps([readable(text) for text in texts])


def text_in_journal(text: str | None) -> str | None:
    """Return a sentence on one line, as SQLite takes it: it may name files that are not UTF-8."""
    return None if text is None else readable(" ".join(map(str.strip, text.splitlines())))
