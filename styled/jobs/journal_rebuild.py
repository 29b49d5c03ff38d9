"""What a lost journal knew can be read from the outbox: each sidecar is a finished job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import structlog
from pydantic import ValidationError

from styled.errors import JournalDamaged
from styled.files import readable, sha256_of
from styled.jobs.job import Arrival, Published
from styled.jobs.journal import Journal
from styled.jobs.journal_notes import degradations_as_json
from styled.jobs.journal_schema import set_aside
from styled.sidecar import Sidecar

log = structlog.get_logger()

IMPORTED_AT_ONCE = 500

_IMPORTED = "outbox_imported"
"""What a journal says once it knows all that the outbox knows."""

_Wanted = tuple[str, str, int]
"""A style, an input's path in readable form, and its size in bytes."""


def open_or_rebuild(
    path: Path,
    arrivals: Callable[[], Iterable[Arrival]],
    inbox: Path,
    outbox: Path,
    now: float,
    go_on: Callable[[], None] = lambda: None,
) -> Journal:
    """Open the journal at `path`; where it is lost or damaged, make one of what there is.

    Args:
        path: Of the journal.
        arrivals: Returns everything that lies in the inbox.
        inbox: The folder.
        outbox: The folder of all results.
        now: Unix time.
        go_on: Called now and then; may raise to stop. The next start begins anew.

    Raises:
        ResourceUnavailable: it can't be opened, or is that of a newer version.
    """
    try:
        journal = Journal.open(path)
    except JournalDamaged as error:
        aside = set_aside(path)
        log.error("journal.set_aside", reason=error.message, kept_as=str(aside))
        journal = Journal.open(path)
    # Asked of the journal itself, because the process may have died just after making it.
    if _IMPORTED not in journal.get_state():
        if imported := import_finished_jobs(journal, arrivals(), inbox, outbox, now, go_on):
            log.warning("jobs.imported", count=imported, source="sidecars in the outbox")
        journal.set_state(**{_IMPORTED: "yes"})
    return journal


def import_finished_jobs(
    journal: Journal,
    arrivals: Iterable[Arrival],
    inbox: Path,
    outbox: Path,
    now: float,
    go_on: Callable[[], None] = lambda: None,
) -> int:
    """Enter what lies in the inbox but is finished already into a new journal.

    Without this, a photo would be painted again that is kept in the inbox, or that had
    not left it yet when the journal was lost.

    Args:
        journal: Knows nothing yet.
        arrivals: Everything that lies in the inbox.
        inbox: The folder.
        outbox: The folder of all results.
        now: Unix time.
        go_on: As for `open_or_rebuild`.

    Returns:
        How many jobs were entered.

    Raises:
        ResourceUnavailable, JournalDamaged: the journal can't be written.
    """
    if next(_published_in(outbox), None) is None:
        return 0
    waiting: dict[_Wanted, Arrival] = {
        (style, readable(arrival.path), arrival.size): arrival
        for arrival in arrivals
        for style in arrival.destinations
    }
    if not waiting:
        return 0
    finished: dict[str, tuple[Arrival, list[Published]]] = {}
    for wanted, done in _published_in(outbox):
        go_on()
        arrival = waiting.get(wanted)
        if arrival is not None and sha256_of(inbox / arrival.path) == done.input_sha256:
            finished.setdefault(arrival.path, (arrival, []))[1].append(done)
    imported = 0
    known = iter(finished.values())
    while portion := list(islice(known, IMPORTED_AT_ONCE)):
        imported += enter_finished(journal, portion, now)
    return imported


def enter_finished(
    journal: Journal, portion: Iterable[tuple[Arrival, Iterable[Published]]], now: float
) -> int:
    """Enter finished jobs; return how many of them were not known yet.

    All that an input is wanted for is entered at once: were its other styles missing, it would
    seem to be finished and leave the inbox.
    """
    entered = 0
    with journal.transaction() as cursor:
        for arrival, published in portion:
            for done in published:
                cursor.execute(
                    "INSERT OR IGNORE INTO jobs (id, input, size, mtime_ns, style,"
                    " destination, state, attempts, submitted_at, finished_at, result,"
                    " result_sha256, input_sha256, degraded, fraction, in_gallery)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'done', 1, ?, ?, ?, ?, ?, ?, 1.0, 1)",
                    (done.job_id, os.fsencode(arrival.path), arrival.size,
                     str(arrival.mtime_ns), done.style,
                     os.fsencode(arrival.destinations[done.style]), now, now,
                     os.fsencode(done.result), done.result_sha256, done.input_sha256,
                     degradations_as_json(done.degraded)),
                )  # fmt: skip
                entered += cursor.rowcount
            journal.submit([arrival], now)
    return entered


def _published_in(outbox: Path) -> Iterator[tuple[_Wanted, Published]]:
    for folder, _, names in os.walk(outbox):
        for name in names:
            path = Path(folder, name)
            result = path.with_suffix("")
            if name.endswith(".json") and os.path.isfile(path) and os.path.isfile(result):
                facts = _read(path)
                if facts is not None and facts.style and facts.result and facts.input.sha256:
                    yield (
                        (facts.style.name, facts.input.path, facts.input.bytes),
                        Published(
                            job_id=facts.job.id,
                            style=facts.style.name,
                            input_sha256=facts.input.sha256,
                            # Not as the sidecar has it, which is in readable form.
                            result=str(result.relative_to(outbox)),
                            result_sha256=facts.result.sha256,
                            degraded=facts.degraded,
                        ),
                    )


def _read(path: Path) -> Sidecar | None:
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None  # somebody else's JSON file, or none of ours any more
