"""`styled status`: what the daemon is doing, from its journal alone."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from styled.cli.exits import console
from styled.cli.working_folder import find_config
from styled.config import Config
from styled.jobs.job import Job, JobState
from styled.jobs.journal import Journal
from styled.ops.lock import InstanceLock
from styled.ops.logs import printable
from styled.sidecar import readable, utc

SHOWN = 5
"""How many jobs of each kind are listed."""


class JobStatus(BaseModel):
    """One job, for a person or a program."""

    id: str
    input: str
    style: str
    state: JobState
    fraction: float
    attempts: int
    reason: str | None
    result: str | None
    finished_at: datetime | None


class Status(BaseModel):
    """What `styled status --json` prints."""

    running: bool
    pid: int | None
    state: str
    version: str | None
    device: str | None
    weights: str | None
    degraded: list[str]
    counts: dict[JobState, int]
    current: list[JobStatus]
    waiting: list[JobStatus]
    last: list[JobStatus]


def show_status(named: Path | None, *, as_json: bool) -> None:
    """Print the status.

    Raises:
        ConfigError, ResourceUnavailable: there is nothing to be seen.
    """
    status = read_status(find_config(named))
    if as_json:
        print(status.model_dump_json(indent=2))
    else:
        _print(status)


def read_status(config: Config) -> Status:
    """Read the journal and the lock; works whether or not the daemon is running.

    Raises:
        ResourceUnavailable: there is no journal, or it can't be read.
    """
    journal = Journal.open_read_only(config.state / "journal.sqlite3")
    try:
        facts = journal.read_daemon()
        owner = InstanceLock(config.state / "lock").owner()
        return Status(
            running=owner is not None,
            pid=owner,
            state=facts.get("state", "unknown") if owner is not None else "not running",
            version=facts.get("version"),
            device=facts.get("device"),
            weights=facts.get("weights"),
            degraded=[
                *json.loads(facts.get("degraded", "[]")),
                *json.loads(facts.get("degraded_intake", "[]")),
            ],
            counts=journal.counts(),
            current=_listed(journal.in_state(JobState.RUNNING, limit=SHOWN)),
            waiting=_listed(journal.in_state(JobState.QUEUED, limit=SHOWN)),
            last=_listed(
                journal.in_state(
                    JobState.DONE, JobState.REJECTED, JobState.CANCELLED,
                    limit=SHOWN, newest_first=True,
                )
            ),
        )  # fmt: skip
    finally:
        journal.close()


def _listed(jobs: list[Job]) -> list[JobStatus]:
    return [
        JobStatus(
            id=job.id,
            input=readable(job.input),
            style=job.style,
            state=job.state,
            fraction=job.fraction,
            attempts=job.attempts,
            reason=job.reason,
            result=None if job.result is None else readable(job.result),
            finished_at=None if job.finished_at is None else utc(job.finished_at),
        )
        for job in jobs
    ]


def _print(status: Status) -> None:
    who = f" (process {status.pid})" if status.pid is not None else ""
    colour = "green" if status.state == "running" else "yellow"
    console.print(Text.assemble("styled is ", (printable(status.state), colour), who))
    if status.running:
        console.print(Text(f"on {status.device}, weights {status.weights}"))
    for note in status.degraded:
        console.print(Text(f"degraded: {note}", "yellow"))
    counts = ", ".join(f"{status.counts.get(state, 0)} {state}" for state in JobState)
    console.print(Text(counts))
    for heading, jobs in (
        ("now", status.current),
        ("waiting", status.waiting),
        ("last", status.last),
    ):
        if jobs:
            console.print()
            console.print(_table(heading, jobs))


def _table(heading: str, jobs: list[JobStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in (heading, "style", "", "result or reason"):
        table.add_column(column)
    for job in jobs:
        what = f"{job.fraction:.0%}" if job.state is JobState.RUNNING else str(job.state)
        # The names in it come from strangers, and Text knows no markup.
        why = job.reason.splitlines()[0] if job.reason else job.result or ""
        table.add_row(*(Text(printable(cell)) for cell in (job.input, job.style, what, why)))
    return table
