"""Rebuilds a lost or damaged journal from the outbox: each sidecar is a finished job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import structlog
from pydantic import ValidationError

from styled.errors import JournalDamaged, ResourceUnavailable
from styled.files import readable, sha256_of
from styled.journal.job import ImportedJob, SettledInputProtocol
from styled.journal.journal import Journal
from styled.journal.schema import set_aside
from styled.journal.writes import degradations_as_json
from styled.sidecar import Sidecar

log = structlog.get_logger()

IMPORTED_AT_ONCE = 500

_IMPORTED = "outbox_imported"
"""Key of the journal's state that is set once the outbox was imported completely."""

_JobKey = tuple[str, str, int]
"""A style, an input's path in readable form, and its size in bytes."""


def open_or_rebuild(
    path: Path,
    inputs: Iterable[SettledInputProtocol],
    inbox: Path,
    outbox: Path,
    now: float,
    on_progress: Callable[[], None] = lambda: None,
) -> Journal:
    """Open the journal at `path`; if it is missing or damaged, make a new one from the outbox.

    Args:
        path: Of the journal.
        inputs: All files in the inbox; only used if there is something to rebuild.
        inbox: The folder.
        outbox: The folder of all results.
        now: Unix time.
        on_progress: Called now and then; may raise to abort. Then the next start imports again.

    Raises:
        ResourceUnavailable: the journal can't be opened, or is of a newer version.
    """
    try:
        journal = Journal.open(path)
    except JournalDamaged as error:
        aside = set_aside(path)
        log.error("journal.set_aside", reason=error.message, kept_as=str(aside))
        journal = Journal.open(path)
    # This is stored in the journal because the process may die between creating it and importing.
    with ExitStack() as on_failure:
        on_failure.callback(journal.close)
        if _IMPORTED not in journal.get_state():
            imported = import_finished_jobs(journal, inputs, inbox, outbox, now, on_progress)
            if imported:
                log.warning("jobs.imported", count=imported, source="sidecars in the outbox")
            journal.set_state(**{_IMPORTED: "yes"})
        on_failure.pop_all()
    return journal


def import_finished_jobs(
    journal: Journal,
    inputs: Iterable[SettledInputProtocol],
    inbox: Path,
    outbox: Path,
    now: float,
    on_progress: Callable[[], None] = lambda: None,
) -> int:
    """Add finished jobs, whose input is still in the inbox, to a new journal.

    Otherwise photos would be painted again that are kept in the inbox, or that had not left it
    when the journal was lost.

    Args:
        journal: An empty journal.
        inputs: All files in the inbox.
        inbox: The folder.
        outbox: The folder of all results.
        now: Unix time.
        on_progress: As for `open_or_rebuild`.

    Returns:
        The number of jobs added.

    Raises:
        ResourceUnavailable, JournalDamaged: the journal can't be written.
    """
    if next(_published_in(outbox), None) is None:
        return 0
    queued: dict[_JobKey, SettledInputProtocol] = {
        (style, readable(settled.path), settled.size): settled
        for settled in inputs
        for style in settled.destinations
    }
    if not queued:
        return 0
    finished: dict[str, tuple[SettledInputProtocol, list[ImportedJob]]] = {}
    for key, job in _published_in(outbox):
        on_progress()
        settled = queued.get(key)
        if settled is not None and _sha256_of(inbox / settled.path) == job.input_sha256:
            finished.setdefault(settled.path, (settled, []))[1].append(job)
    imported = 0
    remaining = iter(finished.values())
    while batch := list(islice(remaining, IMPORTED_AT_ONCE)):
        imported += enter_finished(journal, batch, now)
    return imported


def _sha256_of(photo: Path) -> str | None:
    try:
        return sha256_of(photo)
    except ResourceUnavailable:  # its job reports it; it must not stop the others
        return None


def enter_finished(
    journal: Journal,
    batch: Iterable[tuple[SettledInputProtocol, Iterable[ImportedJob]]],
    now: float,
) -> int:
    """Add finished jobs in one transaction; return how many of them were new.

    The other styles of each input are queued in the same transaction. Without them, all jobs of the
    input would seem to have ended, and it would leave the inbox.
    """
    entered = 0
    with journal.transaction() as cursor:
        for settled, finished in batch:
            for job in finished:
                cursor.execute(
                    "INSERT OR IGNORE INTO jobs (id, input, size, mtime_ns, style,"
                    " destination, state, attempts, submitted_at, finished_at, result,"
                    " result_sha256, input_sha256, degraded, fraction, in_gallery, hook_run)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'done', 1, ?, ?, ?, ?, ?, ?, 1.0, 1, 1)",
                    (job.job_id, os.fsencode(settled.path), settled.size,
                     str(settled.mtime_ns), job.style,
                     os.fsencode(settled.destinations[job.style]), now, now,
                     os.fsencode(job.result), job.result_sha256, job.input_sha256,
                     degradations_as_json(job.degraded)),
                )  # fmt: skip
                entered += cursor.rowcount
            journal.submit([settled], now)
    return entered


def _published_in(outbox: Path) -> Iterator[tuple[_JobKey, ImportedJob]]:
    """Yield the jobs that have a result and a valid sidecar below `outbox`."""
    for folder, _, names in os.walk(outbox):
        for name in names:
            path = Path(folder, name)
            result = path.with_suffix("")
            if name.endswith(".json") and os.path.isfile(path) and os.path.isfile(result):
                sidecar = _read(path)
                if (
                    sidecar is not None
                    and sidecar.style
                    and sidecar.result
                    and sidecar.input.sha256
                ):
                    yield (
                        (sidecar.style.name, sidecar.input.path, sidecar.input.bytes),
                        ImportedJob(
                            job_id=sidecar.job.id,
                            style=sidecar.style.name,
                            input_sha256=sidecar.input.sha256,
                            # Not `sidecar.result.path`, in which non-UTF-8 bytes are escaped.
                            result=str(result.relative_to(outbox)),
                            result_sha256=sidecar.result.sha256,
                            degraded=sidecar.degraded,
                        ),
                    )


def _read(path: Path) -> Sidecar | None:
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None  # another program's JSON file, or a sidecar that was changed or deleted
