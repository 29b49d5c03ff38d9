"""What the daemon is doing, from its journal and its lock alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel

from styled.config import Config
from styled.degradation import Degradation
from styled.files import readable
from styled.jobs.job import Job, JobState, Phase
from styled.jobs.journal import Journal
from styled.jobs.journal_queries import JournalReader
from styled.ops.lock import InstanceLock
from styled.ops.room import FOLDERS, Room
from styled.ops.stuck_record import StuckRecord

SHOWN = 5
"""How many jobs of each kind are listed."""


class ProgressStatus(BaseModel):
    """Where a running job stands; the journal's `JobProgress`."""

    scale: int
    scales: int
    width: int
    height: int
    step: int
    steps: int
    loss: float
    step_seconds: float | None
    seconds_left: float | None
    preview: str | None


class JobStatus(BaseModel):
    """One job, for a person or a program."""

    id: str
    input: str
    style: str
    state: JobState
    fraction: float
    attempts: int
    reason: str | None
    failure: str | None
    result: str | None
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    not_before: datetime | None
    cancel_requested: bool
    phase: Phase | None
    engine: str | None
    degraded: list[Degradation]
    remedies: list[str]
    progress: ProgressStatus | None


class StyleQueue(BaseModel):
    """What is still to be done in one style."""

    style: str
    queued: int
    running: int


class EngineStatus(BaseModel):
    """One engine; without a device it is gone, and `trouble` says why."""

    name: str
    device: str | None
    trouble: str | None


class Disk(BaseModel):
    """The disk that some of the folders are on; sizes in bytes."""

    folders: list[str]
    path: str
    free: int
    total: int


class UnfinishedStatus(BaseModel):
    """A file in the inbox that is still on its way."""

    path: str
    reason: str
    until: datetime | None


class PathStatus(BaseModel):
    """A path in the inbox, and what is wrong with it."""

    path: str
    reason: str
    remedies: list[str] = []


class Status(BaseModel):
    """What `styled status --json` prints."""

    running: bool
    pid: int | None
    state: str
    started_at: datetime | None
    version: str | None
    device: str | None
    weights: str | None
    engines: list[EngineStatus]
    troubles: list[str]
    degraded: list[Degradation]
    unpaired: int
    unfinished: list[UnfinishedStatus]
    unreadable: list[PathStatus]
    misspelled: list[PathStatus]
    stuck: list[PathStatus]
    stuck_count: int
    counts: dict[JobState, int]
    queue: list[StyleQueue]
    current: list[JobStatus]
    waiting: list[JobStatus]
    last: list[JobStatus]
    rejections: list[JobStatus]
    disks: list[Disk]


def read_status(config: Config) -> Status:
    """Read the journal and the lock; works whether or not the daemon is running.

    Raises:
        ResourceUnavailable: there is no journal, or it can't be read.
    """
    journal = Journal.open_read_only(config.state / "journal.sqlite3")
    try:
        return _status(config, journal)
    finally:
        journal.close()


def daemon_facts(config: Config, journal: JournalReader) -> Mapping[str, str]:
    """Return what the daemon has noted about itself, in the journal and beside it."""
    return {**journal.get_state(), "stuck": StuckRecord.load(config.state).reason}


def _status(config: Config, journal: JournalReader) -> Status:
    facts = daemon_facts(config, journal)
    owner = InstanceLock(config.state / "lock").owner()
    lives = owner is not None
    started_at = facts.get("started_at")
    inbox = inbox_status(facts)
    return Status(
        running=lives,
        pid=owner,
        state=facts.get("state", "unknown") if lives else "not running",
        started_at=_time(float(started_at)) if lives and started_at else None,
        version=facts.get("version"),
        device=facts.get("device"),
        weights=facts.get("weights"),
        engines=[
            EngineStatus.model_validate(one)
            for one in (json.loads(facts.get("engines", "[]")) if lives else ())
        ],
        troubles=troubles_in(facts) if lives else [],
        degraded=[] if not lives else [
            Degradation(**one)
            for part in ("degraded", "degraded_intake")
            for one in json.loads(facts.get(part, "[]"))
        ],
        unpaired=inbox.unpaired,
        unfinished=inbox.unfinished,
        unreadable=inbox.unreadable,
        misspelled=inbox.misspelled,
        stuck=stuck_in(facts),
        stuck_count=int(facts.get("stuck_count", "0")),
        counts=journal.counts(),
        queue=[
            StyleQueue(
                style=style,
                queued=counts.get(JobState.QUEUED, 0),
                running=counts.get(JobState.RUNNING, 0),
            )
            for style, counts in journal.waiting_by_style().items()
        ],
        # What a dead daemon was at waits for the next start, like all others.
        current=listed(journal.in_state(JobState.RUNNING, limit=-1)) if lives else [],
        waiting=listed(
            journal.in_state(
                JobState.QUEUED, *([] if lives else [JobState.RUNNING]), limit=SHOWN
            )
        ),
        last=listed(
            journal.in_state(
                JobState.DONE, JobState.REJECTED, JobState.CANCELLED,
                limit=SHOWN, newest_first=True,
            )
        ),
        rejections=listed(
            journal.in_state(JobState.REJECTED, limit=SHOWN, newest_first=True)
        ),
        disks=_disks(config),
    )  # fmt: skip


TROUBLES = (
    "stuck",
    "inbox_trouble",
    "inbox_read_only",
    "config_trouble",
    "gallery_trouble",
    "metrics_trouble",
)


def troubles_in(facts: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the whole service, as the daemon has noted it."""
    styles = json.loads(facts.get("style_troubles", "{}"))
    return [
        *(facts[trouble] for trouble in TROUBLES if facts.get(trouble)),
        *(f"photos of the style {style} wait: {reason}" for style, reason in styles.items()),
    ]


def stuck_in(facts: Mapping[str, str]) -> list[PathStatus]:
    """Return the inputs that can't leave the inbox, as far as the daemon has named them."""
    return [
        PathStatus(path=readable(one["path"]), reason=one["reason"], remedies=one["remedies"])
        for one in json.loads(facts.get("stuck_inputs", "[]"))
    ]


@dataclass(frozen=True, slots=True)
class InboxStatus:
    """What lies in the inbox and is not taken; see `styled.intake.intake.InboxReport`."""

    unpaired: int
    unfinished: list[UnfinishedStatus]
    unreadable: list[PathStatus]
    misspelled: list[PathStatus]


def inbox_status(facts: Mapping[str, str]) -> InboxStatus:
    """Return what the daemon has noted about the inbox; paths are relative to it."""
    report = json.loads(facts.get("inbox_report", "{}"))
    return InboxStatus(
        unpaired=report.get("unpaired", 0),
        unfinished=[
            UnfinishedStatus(
                path=readable(one["path"]), reason=one["reason"], until=_time(one["until"])
            )
            for one in report.get("unfinished", ())
        ],
        unreadable=[
            PathStatus(
                path=readable(one["path"]),
                reason=f"can't be looked into: {one['reason']}",
                remedies=["give styled's user permission to read it (a folder: chmod a+rx)"],
            )
            for one in report.get("skipped", ())
        ],
        misspelled=[
            PathStatus(
                path=readable(folder),
                reason=f'is not the folder of "{style}", whose name is written differently '
                "(case, or the Unicode form of an accent)",
                remedies=[f"move what is in it into {style}, or rename it"],
            )
            for folder, style in report.get("misspelled", ())
        ],
    )


def listed(jobs: list[Job]) -> list[JobStatus]:
    """Return jobs as they are shown."""
    return [
        JobStatus(
            id=job.id,
            input=readable(job.input),
            style=job.style,
            state=job.state,
            fraction=job.fraction,
            attempts=job.attempts,
            reason=job.reason,
            failure=job.failure,
            result=None if job.result is None else readable(job.result),
            submitted_at=_utc(job.submitted_at),
            started_at=_time(job.started_at),
            finished_at=_time(job.finished_at),
            not_before=_time(job.not_before or None),
            cancel_requested=job.cancel_requested,
            phase=job.phase,
            engine=job.engine,
            degraded=list(job.degraded),
            remedies=list(job.remedies),
            progress=None
            if job.progress is None or job.state is not JobState.RUNNING
            else ProgressStatus.model_validate(job.progress, from_attributes=True),
        )
        for job in jobs
    ]


def _time(unix_seconds: float | None) -> datetime | None:
    return None if unix_seconds is None else _utc(unix_seconds)


def _utc(unix_seconds: float) -> datetime:
    # Not the sidecar's: its models would be made for nothing.
    return datetime.fromtimestamp(unix_seconds, UTC)


def _disks(config: Config) -> list[Disk]:
    """Return the disks of all folders that can be seen, each one once."""
    disks: dict[int, Disk] = {}
    folders = {name: getattr(config, name) for name in FOLDERS}
    for name, usage in Room(folders).look().items():
        path = readable(folders[name])
        disk = disks.setdefault(
            usage.disk, Disk(folders=[], path=path, free=usage.free, total=usage.total)
        )
        disk.folders.append(name)
    return list(disks.values())
