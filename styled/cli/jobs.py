"""`styled jobs` and `styled cancel`: lists and cancels jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter
from rich.text import Text

from styled.cli.exit_codes import console, exit_with_usage_error
from styled.cli.find_config import current_folder, find_config_in_use
from styled.cli.status import JobStatus, engine_statuses, job_statuses
from styled.cli.status_view import job_table
from styled.config import Config
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.journal.job import Job, JobState
from styled.journal.journal import Journal
from styled.journal.queries import FINISHED, JournalReader
from styled.ops.humanize import printable
from styled.ops.lock import InstanceLock

UNFINISHED = (JobState.RUNNING, JobState.QUEUED)

MAX_HINTS = 3
"""How many photos of the same name are suggested."""

CANCEL_SECONDS = 10.0
"""How long `styled cancel` waits for the daemon to cancel the jobs."""


def show_jobs(
    config_path: Path | None,
    states: Sequence[JobState],
    style: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """Print jobs: the unfinished ones in queue order, then the latest finished ones.

    Args:
        config_path: The configuration file; None: the default one.
        states: Print only jobs in these states; empty: all states.
        style: Print only jobs of this style; None: all styles.
        limit: Maximum number of unfinished and of finished jobs.
        as_json: Print JSON instead of a table.

    Raises:
        ConfigError: There is no valid configuration.
        ResourceUnavailable: There is no journal, or it can't be read.
    """
    config = find_config_in_use(config_path)
    journal = Journal.open_read_only(config.state / "journal.sqlite3")
    try:
        jobs: list[Job] = []
        for group, newest_first in ((UNFINISHED, False), (FINISHED, True)):
            selected_states = [state for state in group if not states or state in states]
            if selected_states:
                jobs += journal.in_state(
                    *selected_states, limit=limit, newest_first=newest_first, style=style
                )
        engines = engine_statuses(journal.get_state())
    finally:
        journal.close()
    statuses = job_statuses(jobs, engines)
    if as_json:
        print(TypeAdapter(list[JobStatus]).dump_json(statuses, indent=2).decode())
    elif statuses:
        console.print(job_table("photo", statuses, with_ids=True))
    else:
        console.print("no such jobs")


def cancel(config_path: Path | None, args: list[str], *, everything: bool) -> None:
    """Request the cancellation of jobs, wait for the daemon, and print the state of each job.

    Args:
        config_path: The configuration file; None: the default one.
        args: Job ids, or paths of photos in the inbox.
        everything: Cancel all unfinished jobs.

    Raises:
        ConfigError: There is no valid configuration.
        ResourceUnavailable: There is no journal, or this user may not write it.
    """
    config = find_config_in_use(config_path)
    if everything == bool(args):
        exit_with_usage_error("name what to cancel, or use --all for everything in the queue")
    journal = open_for_requests(config, "cancel jobs")
    try:
        selected = (
            journal.in_state(*UNFINISHED, limit=-1)
            if everything
            else list({job.id: job for arg in args for job in _jobs_for(arg, config, journal)}
                      .values())
        )  # fmt: skip
        for job in selected:
            journal.request_cancel(job)
        is_running = InstanceLock(config.state / "lock").owner() is not None
        deadline = time.monotonic() + CANCEL_SECONDS
        while is_running and journal.cancel_requests() and time.monotonic() < deadline:
            time.sleep(0.1)
        for job in selected:
            _print_outcome(journal.job(job.id) or job, is_running=is_running)
    finally:
        journal.close()
    if not selected:
        console.print("nothing in the queue")


def put_first(config_path: Path | None, args: list[str]) -> None:
    """Put queued jobs before all others, in the order given, and print what became of each.

    Args:
        config_path: The configuration file; None: the default one.
        args: Paths of photos in the inbox, or job ids.

    Raises:
        ConfigError: There is no valid configuration.
        ResourceUnavailable: There is no journal, or this user may not write it.
    """
    config = find_config_in_use(config_path)
    journal = open_for_requests(config, "reorder the queue")
    try:
        jobs = {job.id: job for arg in args for job in _jobs_for(arg, config, journal)}
        # The last one first: each is put before all others.
        is_put = {job.id: journal.put_first(job) for job in reversed(jobs.values())}
        for job in jobs.values():
            description = f"{readable(job.input)} in {job.style}"
            outcome = "next" if is_put[job.id] else f"it is {job.state} already"
            console.print(Text(printable(f"{outcome}: {description}")), soft_wrap=True)
    finally:
        journal.close()


def open_for_requests(config: Config, purpose: str) -> Journal:
    path = config.state / "journal.sqlite3"
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise ResourceUnavailable(
            f"only whoever may write {path} may {purpose}",
            "do it as the user that styled runs as (sudo -u styled ...), or as root",
        )
    return Journal.open_for_requests(path)


def _jobs_for(arg: str, config: Config, journal: JournalReader) -> list[Job]:
    job = journal.job(readable(arg))
    if job is not None:
        return [job]
    inbox = os.path.realpath(config.inbox)
    for base in (current_folder(), config.inbox):
        path = os.path.join(os.path.realpath((base / arg).parent), os.path.basename(arg))
        if path.startswith(inbox + os.sep):
            jobs = journal.jobs_about("input", os.path.relpath(path, inbox))
            if jobs:
                return [job for job in jobs if job.state in UNFINISHED] or jobs[:1]
    return exit_with_usage_error(
        f"{readable(arg)} is not in the queue: neither the id of a job (styled jobs lists them) "
        f"nor a photo in {config.inbox} that waits{_hint(arg, journal)}"
    )


def _hint(arg: str, journal: JournalReader) -> str:
    """Name the waiting photos of this name in sub-folders."""
    unfinished = journal.in_state(*UNFINISHED, limit=-1)
    names = dict.fromkeys(
        readable(job.input) for job in unfinished if os.path.basename(job.input) == arg
    )
    return f"; did you mean {' or '.join(list(names)[:MAX_HINTS])}?" if names else ""


def _print_outcome(job: Job, *, is_running: bool) -> None:
    description = f"{readable(job.input)} in {job.style}"
    if job.state is JobState.CANCELLED:
        line = f"cancelled: {description}"
    elif job.state in FINISHED:
        line = f"too late, it is {job.state} already: {description}"
    elif is_running:
        line = f"will be cancelled once the current step ends: {description}"
    else:
        line = f"will be cancelled when styled starts; it is not running now: {description}"
    console.print(Text(printable(line)), soft_wrap=True)
