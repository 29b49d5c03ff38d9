"""The journal's SQLite file: schema, opening, and conversion of SQLite's errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from styled.errors import DiskFailure, JournalDamaged, NoJournal, ResourceUnavailable
from styled.ownership import chown_to_owner_of

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    input BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns TEXT NOT NULL, -- a file may be dated beyond what an INTEGER holds: the year 2262
    style TEXT NOT NULL,
    destination BLOB NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    attempts INTEGER NOT NULL DEFAULT 0,
    submitted_at REAL NOT NULL,
    not_before REAL NOT NULL DEFAULT 0,
    started_at REAL,
    finished_at REAL,
    result BLOB,
    result_sha256 TEXT,
    input_sha256 TEXT, -- what was read: a file may be rewritten and keep its size and its date
    original BLOB,
    reason TEXT,
    failure TEXT,
    remedies TEXT NOT NULL DEFAULT '[]', -- JSON
    fraction REAL NOT NULL DEFAULT 0,
    progress TEXT, -- JSON
    degraded TEXT NOT NULL DEFAULT '[]', -- JSON
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    phase TEXT, -- of a running job
    engine TEXT,
    is_suspect INTEGER NOT NULL DEFAULT 0, -- a process died while it worked on it
    priority INTEGER NOT NULL DEFAULT 0, -- higher first; 1000: by `styled first`
    in_inbox INTEGER NOT NULL DEFAULT 1,
    is_released INTEGER NOT NULL DEFAULT 0, -- its original, or a copy, is where it belongs
    in_gallery INTEGER NOT NULL DEFAULT 0,
    hook_run INTEGER NOT NULL DEFAULT 0 -- 1: nothing to run any more
);
-- The same file is never submitted twice while it lies in the inbox, done or not.
CREATE UNIQUE INDEX jobs_identity ON jobs (input, style, size, mtime_ns) WHERE in_inbox;
CREATE INDEX jobs_queue ON jobs (state, priority DESC, seq);
CREATE INDEX jobs_cancel_requested ON jobs (seq) WHERE cancel_requested;
CREATE INDEX jobs_not_in_gallery ON jobs (finished_at)
    WHERE NOT in_gallery AND finished_at IS NOT NULL;
CREATE INDEX jobs_hook_not_run ON jobs (finished_at)
    WHERE NOT hook_run AND finished_at IS NOT NULL;
-- What metrics and `styled status` ask for, without reading all jobs.
CREATE INDEX jobs_unfinished ON jobs (style, state) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_oldest ON jobs (submitted_at) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_newest ON jobs (state, coalesce(finished_at, started_at, submitted_at));
CREATE TABLE daemon_state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

MAX_LOG_BYTES = 8 * 1024**2
"""Size to which the write-ahead log is truncated after it has grown, for instance because a hundred
thousand jobs were submitted at once."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file at `path`, creating it if there is none.

    Raises:
        JournalDamaged: the file is not a database, or is damaged.
        ResourceUnavailable: it can't be opened or written, or is of a newer version.
    """
    with sqlite_errors(path), ExitStack() as on_failure:
        _make_file(path)
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        on_failure.callback(connection.close)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA busy_timeout = 10000")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
        # Group members and others may read the file; only the owner may write it.
        path.chmod(path.stat().st_mode & 0o755)
        version = _version(connection)
        if version > SCHEMA_VERSION:
            raise ResourceUnavailable(
                f"the journal {path} was written by a newer styled (schema {version}, this "
                f"one knows {SCHEMA_VERSION})",
                "install that version again, or move the journal away to start afresh",
            )
        _check(connection, path)
        if version == 0:
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        on_failure.pop_all()
    return connection


def _make_file(path: Path) -> None:
    """Create the file if it is missing: SQLite gives its other files the owner of this one."""
    with suppress(OSError):  # SQLite will report the error
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            chown_to_owner_of(path.parent, descriptor)
        finally:
            os.close(descriptor)


def open_existing_database(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a file that a daemon has created and may be using now.

    Raises:
        JournalDamaged: the file is not a database, or is damaged.
        NoJournal: there is no such file.
        ResourceUnavailable: it can't be read (or written, unless `read_only`), or is of another
            version.
    """
    try:
        path.stat()
    except FileNotFoundError:
        raise NoJournal(f"there is no journal at {path}", "start it with styled run") from None
    except OSError as error:
        raise ResourceUnavailable(
            f"the journal {path} can't be read: {error.strerror}",
            "ask as the user that styled runs as (sudo -u styled ...), or as root",
        ) from error
    # If there is no write-ahead log, no process is writing. Without `immutable=1` SQLite would
    # then create one, which a user with read permission only may not.
    log_file = path.with_name(f"{path.name}-wal")
    read_mode = "mode=ro" if log_file.exists() else "mode=ro&immutable=1"
    mode = read_mode if read_only else "mode=rw"
    with sqlite_errors(path), ExitStack() as on_failure:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None
        )
        on_failure.callback(connection.close)
        connection.execute("PRAGMA busy_timeout = 2000")
        version = _version(connection)
        if version != SCHEMA_VERSION:
            raise ResourceUnavailable(
                f"the journal {path} is that of another version of styled (schema {version}, this "
                f"one knows {SCHEMA_VERSION})",
                "use the version that the daemon has",
            )
        connection.execute("SELECT 1 FROM jobs LIMIT 1")
        on_failure.pop_all()
    return connection


def set_aside(path: Path) -> Path:
    """Rename a damaged journal, so that it is kept but no longer used; return the new path.

    Raises:
        ResourceUnavailable: it can't be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
        for suffix in ("-wal", "-shm"):  # they belong to this file
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise ResourceUnavailable(
            f"the damaged journal {path} can't be renamed: {error.strerror}",
            "move it away, then start again",
        ) from error
    return aside


_DISK_ERRORS = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY})


@contextmanager
def sqlite_errors(path: Path | None = None) -> Iterator[None]:
    """Convert SQLite's exceptions to styled's.

    Raises:
        JournalDamaged: the file is not a database, or is damaged.
        ResourceUnavailable: any other error, such as a full disk.
    """
    where = f" {path}" if path else ""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # The low byte is the primary error code; the other bytes are details.
        if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        ):
            raise _damaged(where, str(error)) from error
        is_disk = (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DISK_ERRORS
        raise (DiskFailure if is_disk else ResourceUnavailable)(
            f"the journal{where} can't be used: {error}",
            "check free space and permissions of the state folder",
        ) from error
    except UnicodeDecodeError as error:  # raised by Python for a damaged text
        raise _damaged(where, str(error)) from error


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _check(connection: sqlite3.Connection, path: Path) -> None:
    problem: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise _damaged(f" {path}", problem)


def _damaged(where: str, problem: str) -> JournalDamaged:
    return JournalDamaged(
        f"the journal{where} is damaged: {problem}",
        "start styled again: it puts the journal aside and makes a new one of what lies in "
        "the inbox and the outbox",
    )
