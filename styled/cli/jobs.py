"""`styled jobs` and `styled cancel`: the queue in detail, and taking something out of it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter
from rich.text import Text

from styled.cli.exits import console, leave_with_usage_error
from styled.cli.status import JobStatus, listed
from styled.cli.status_view import table_of
from styled.cli.working_folder import current_folder, find_config
from styled.config import Config
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.jobs.job import Job, JobState
from styled.jobs.journal import Journal
from styled.jobs.journal_queries import FINISHED, JournalReader
from styled.ops.lines import printable
from styled.ops.lock import InstanceLock

UNFINISHED = (JobState.RUNNING, JobState.QUEUED)

CANCEL_SECONDS = 10.0
"""How long `styled cancel` waits for the daemon to have done it."""


def show_jobs(
    named: Path | None,
    states: Sequence[JobState],
    style: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """Print jobs: those that are still to be done in their order, then the latest others.

    Args:
        named: The configuration.
        states: Only these, if any are named.
        style: Only this one, if it is named.
        limit: How many of each kind at most.
        as_json: For programs.

    Raises:
        ConfigError, ResourceUnavailable: there is nothing to be seen.
    """
    config = find_config(named)
    journal = Journal.open_read_only(config.state / "journal.sqlite3")
    try:
        jobs: list[Job] = []
        for kinds, newest_first in ((UNFINISHED, False), (FINISHED, True)):
            wanted = [state for state in kinds if not states or state in states]
            if wanted:
                jobs += journal.in_state(
                    *wanted, limit=limit, newest_first=newest_first, style=style
                )
    finally:
        journal.close()
    shown = listed(jobs)
    if as_json:
        print(TypeAdapter(list[JobStatus]).dump_json(shown, indent=2).decode())
    elif shown:
        console.print(table_of("photo", shown, with_ids=True))
    else:
        console.print("no such jobs")


def cancel(named: Path | None, words: list[str], *, everything: bool) -> None:
    """Have jobs cancelled, and say what became of each.

    Args:
        named: The configuration.
        words: Ids of jobs, or photos in the inbox.
        everything: All that is still to be done.

    Raises:
        ConfigError, ResourceUnavailable: as the words say.
    """
    config = find_config(named)
    if everything == bool(words):
        leave_with_usage_error("name what to cancel, or use --all for everything in the queue")
    path = config.state / "journal.sqlite3"
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise ResourceUnavailable(
            f"only whoever may write {path} may cancel jobs",
            "do it as the user that styled runs as (sudo -u styled ...), or as root",
        )
    journal = Journal.open_for_requests(path)
    try:
        chosen = (
            journal.in_state(*UNFINISHED, limit=-1)
            if everything
            else list({job.id: job for word in words for job in _meant(word, config, journal)}
                      .values())
        )  # fmt: skip
        for job in chosen:
            journal.request_cancel(job)
        is_running = InstanceLock(config.state / "lock").owner() is not None
        deadline = time.monotonic() + CANCEL_SECONDS
        while is_running and journal.cancel_requests() and time.monotonic() < deadline:
            time.sleep(0.1)
        for job in chosen:
            _say_what_became_of(journal.job(job.id) or job, is_running=is_running)
    finally:
        journal.close()
    if not chosen:
        console.print("nothing in the queue")


def _meant(word: str, config: Config, journal: JournalReader) -> list[Job]:
    job = journal.job(readable(word))
    if job is not None:
        return [job]
    inbox = os.path.realpath(config.inbox)
    for base in (current_folder(), config.inbox):
        path = os.path.join(os.path.realpath((base / word).parent), os.path.basename(word))
        if path.startswith(inbox + os.sep):
            jobs = journal.jobs_about("input", os.path.relpath(path, inbox))
            if jobs:
                return [job for job in jobs if job.state in UNFINISHED] or jobs[:1]
    return leave_with_usage_error(
        f"{readable(word)} is not in the queue: neither the id of a job (styled jobs lists them) "
        f"nor a photo in {config.inbox} that waits"
    )


def _say_what_became_of(job: Job, *, is_running: bool) -> None:
    what = f"{readable(job.input)} in {job.style}"
    if job.state is JobState.CANCELLED:
        line = f"cancelled: {what}"
    elif job.state in FINISHED:
        line = f"too late, it is {job.state} already: {what}"
    elif is_running:
        line = f"will be cancelled once the present step ends: {what}"
    else:
        line = f"will be cancelled when styled starts; it is not running now: {what}"
    console.print(Text(printable(line)), soft_wrap=True)
