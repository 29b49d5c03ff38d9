"""Reads the status of the daemon from its journal and its lock file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel

from styled.config import Config
from styled.degradation import Degradation
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.files import SETTINGS_SUFFIX, readable
from styled.journal.job import Job, JobState, Phase
from styled.journal.journal import Journal
from styled.journal.pause_request import PAUSE_REQUEST
from styled.journal.queries import JournalReader
from styled.ops.disk_space import FOLDERS, DiskSpace
from styled.ops.lock import InstanceLock
from styled.ops.stall_record import StallRecord

MAX_LISTED = 5
"""Maximum number of jobs in each list of a status, except the running jobs."""


class ProgressStatus(BaseModel):
    """The progress of a running job: the journal's `JobProgress`."""

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
    """One job, as printed by `styled status` and `styled jobs`.

    `device` and `node` are those of the engine that paints it now.
    """

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
    device: str | None = None
    node: str | None = None
    degraded: list[Degradation]
    remedies: list[str]
    progress: ProgressStatus | None


class StyleQueue(BaseModel):
    """The number of unfinished jobs of one style."""

    style: str
    queued: int
    running: int


class EngineStatus(BaseModel):
    """One engine. `device` is None if the engine was lost; `problem` is then the reason."""

    name: str
    device: str | None
    node: str | None = None
    problem: str | None


class Disk(BaseModel):
    """A file system and the folders that are on it; sizes in bytes."""

    folders: list[str]
    path: str
    free: int
    total: int


class IncompleteStatus(BaseModel):
    """A file in the inbox that is still being written."""

    path: str
    reason: str
    until: datetime | None


class PathStatus(BaseModel):
    """A path in the inbox and its problem."""

    path: str
    reason: str
    remedies: list[str] = []


class Status(BaseModel):
    """The status of the daemon; printed by `styled status --json`."""

    running: bool
    pid: int | None
    state: str
    started_at: datetime | None
    version: str | None
    device: str | None
    weights: str | None
    engines: list[EngineStatus]
    problems: list[str]
    degraded: list[Degradation]
    unpaired: int
    not_pictures: int
    incomplete: list[IncompleteStatus]
    skipped: list[PathStatus]
    misspelled: list[PathStatus]
    invalid_settings: list[PathStatus]
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
    """Read the status from the journal and the lock; the daemon need not be running.

    Raises:
        ResourceUnavailable: There is no journal, or it can't be read.
    """
    journal = Journal.open_read_only(config.state / "journal.sqlite3")
    try:
        return _status(config, journal)
    finally:
        journal.close()


def daemon_state(config: Config, journal: JournalReader) -> Mapping[str, str]:
    """Return the state that the daemon has stored, in the journal and in the stall record."""
    return {**journal.get_state(), "stalled": StallRecord.load(config.state).reason}


def read_daemon_state(config: Config) -> Mapping[str, str]:
    """Open the journal and return `daemon_state`; empty if that can't be read."""
    try:
        journal = Journal.open_read_only(config.state / "journal.sqlite3")
        try:
            return daemon_state(config, journal)
        finally:
            journal.close()
    except (ResourceUnavailable, JournalDamaged):
        return {}


def _status(config: Config, journal: JournalReader) -> Status:
    state = daemon_state(config, journal)
    owner = InstanceLock(config.state / "lock").owner()
    is_running = owner is not None
    started_at = state.get("started_at")
    inbox = inbox_status(state)
    engines = engine_statuses(state) if is_running else []
    return Status(
        running=is_running,
        pid=owner,
        state=state.get("activity", "unknown") if is_running else _state_at_rest(state),
        started_at=_time(float(started_at)) if is_running and started_at else None,
        version=state.get("version"),
        device=state.get("device"),
        weights=state.get("weights"),
        engines=engines,
        problems=problems_in(state) if is_running else [],
        degraded=[] if not is_running else [
            Degradation(**item)
            for part in ("degraded_engines", "degraded_intake")
            for item in json.loads(state.get(part, "[]"))
        ],
        unpaired=inbox.unpaired,
        not_pictures=inbox.not_pictures,
        incomplete=inbox.incomplete,
        skipped=inbox.skipped,
        misspelled=inbox.misspelled,
        invalid_settings=inbox.invalid_settings,
        stuck=stuck_in(state),
        stuck_count=int(state.get("stuck_count", "0")),
        counts=journal.counts(),
        queue=[
            StyleQueue(
                style=style,
                queued=counts.get(JobState.QUEUED, 0),
                running=counts.get(JobState.RUNNING, 0),
            )
            for style, counts in journal.unfinished_by_style().items()
        ],
        # If the daemon has died, its running jobs wait for the next start like queued ones.
        current=job_statuses(journal.in_state(JobState.RUNNING, limit=-1), engines)
        if is_running else [],
        waiting=job_statuses(
            journal.in_state(
                JobState.QUEUED, *([] if is_running else [JobState.RUNNING]), limit=MAX_LISTED
            )
        ),
        last=job_statuses(
            journal.in_state(
                JobState.DONE, JobState.REJECTED, JobState.CANCELLED,
                limit=MAX_LISTED, newest_first=True,
            )
        ),
        rejections=job_statuses(
            journal.in_state(JobState.REJECTED, limit=MAX_LISTED, newest_first=True)
        ),
        disks=_disks(config),
    )  # fmt: skip


def _state_at_rest(state: Mapping[str, str]) -> str:
    """Return the state of a daemon that does not run."""
    return "not running, and paused on request" if state.get(PAUSE_REQUEST) else "not running"


PROBLEMS = (
    "stalled",
    "cluster_problem",
    "inbox_problem",
    "inbox_read_only",
    "config_problem",
    "needs_restart",
    "gallery_problem",
    "metrics_problem",
    "hook_problem",
    "styles_left_out",
)


def problems_in(state: Mapping[str, str]) -> list[str]:
    """Return the problems of the service as a whole, as stored by the daemon."""
    return [message for _, message in problems_by_kind(state)]


def problems_by_kind(state: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield these problems, each with its kind: one of `PROBLEMS`, or `style_problems`."""
    yield from ((kind, state[kind]) for kind in PROBLEMS if state.get(kind))
    for style, reason in json.loads(state.get("style_problems", "{}")).items():
        yield "style_problems", f"photos of the style {style} wait: {reason}"


def stuck_in(state: Mapping[str, str]) -> list[PathStatus]:
    """Return the inputs that can't be moved out of the inbox, as listed by the daemon."""
    return [
        PathStatus(path=readable(item["path"]), reason=item["reason"], remedies=item["remedies"])
        for item in json.loads(state.get("stuck_inputs", "[]"))
    ]


@dataclass(frozen=True, slots=True)
class InboxStatus:
    """Files in the inbox that are not taken; see `styled.intake.host.InboxReport`."""

    unpaired: int
    not_pictures: int
    incomplete: list[IncompleteStatus]
    skipped: list[PathStatus]
    misspelled: list[PathStatus]
    invalid_settings: list[PathStatus]


def inbox_status(state: Mapping[str, str]) -> InboxStatus:
    """Return the daemon's report about the inbox; paths are relative to it."""
    report = json.loads(state.get("inbox_report", "{}"))
    return InboxStatus(
        unpaired=report.get("unpaired", 0),
        not_pictures=report.get("not_pictures", 0),
        incomplete=[
            IncompleteStatus(
                path=readable(item["path"]), reason=item["reason"], until=_time(item["until"])
            )
            for item in report.get("incomplete", ())
        ],
        skipped=[
            PathStatus(
                path=readable(item["path"]),
                reason=item["reason"],
                remedies=[item["remedy"]],
            )
            for item in report.get("skipped", ())
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
        invalid_settings=[
            PathStatus(
                path=readable(photo),
                reason=f"its settings are not valid: {readable(problem)}",
                remedies=[
                    f"fix {readable(photo)}{SETTINGS_SUFFIX}: a photo with invalid settings "
                    "is rejected when its turn comes"
                ],
            )
            for photo, problem in report.get("invalid_settings", ())
        ],
    )


def engine_statuses(state: Mapping[str, str]) -> list[EngineStatus]:
    """Return the daemon's engines, as stored by it."""
    return [EngineStatus.model_validate(one) for one in json.loads(state.get("engines", "[]"))]


def job_statuses(jobs: list[Job], engines: Sequence[EngineStatus] = ()) -> list[JobStatus]:
    """Convert jobs to their printed form; `engines` are those of the running daemon."""
    by_name = {engine.name: engine for engine in engines}
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
            device=by_name[job.engine].device if job.engine in by_name else None,
            node=by_name[job.engine].node if job.engine in by_name else None,
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
    # `styled.sidecar` has the same function, but importing it would build its models for nothing.
    return datetime.fromtimestamp(unix_seconds, UTC)


def _disks(config: Config) -> list[Disk]:
    """Return the disks of all accessible folders, each disk once."""
    disks: dict[int, Disk] = {}
    folders = {name: getattr(config, name) for name in FOLDERS}
    for name, usage in DiskSpace(folders).usage().items():
        path = readable(folders[name])
        disk = disks.setdefault(
            usage.disk, Disk(folders=[], path=path, free=usage.free, total=usage.total)
        )
        disk.folders.append(name)
    return list(disks.values())
