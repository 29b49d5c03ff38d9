"""Maps the error of a failed job to what happens to the job and to the queue: one table."""

from __future__ import annotations

from dataclasses import dataclass

from styled.errors import (
    DiskNearlyFull,
    DiskReadOnly,
    EngineDied,
    EngineFailure,
    FolderNotWritable,
    InboxUnavailable,
    InputIncomplete,
    InputRejected,
    JournalDamaged,
    MemoryShortage,
    NameNotSupported,
    NodeLost,
    ResourceUnavailable,
    StyledError,
    StyleUnavailable,
    UnexpectedError,
)
from styled.journal.job import BLOCKED, Job, Phase

UNREADABLE_SECONDS = 5.0
"""Retry delay of a job whose file can't be read at the moment."""

CONFIGURATION_RETRY_SECONDS = 30.0
"""Retry delay of a job whose style or folder can't be used until somebody fixes it."""

BLAMED_NODE_LOSSES = 3
"""Losses of a node count as attempts of a job from this one on."""

MAX_NODE_SECONDS = 30.0
"""Longest retry delay of a job that has lost its node; Ray takes half as long to notice that."""

FIRST_RETRY_SECONDS = 10.0
MAX_RETRY_SECONDS = 300.0
"""Back-off of a job after a failure or a shortage of memory: doubles each time, up to the longest.
Other jobs run in the meantime."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """The job is retried.

    Attributes:
        wait_seconds: Minimum delay before the next attempt.
        failure: The failure class.
        attempt_counts: False if the job is not to blame: it gets its attempt back.
        whole_style: Whether all queued jobs of its style wait too, since they would fail in the
            same way.
    """

    wait_seconds: float
    failure: str = BLOCKED
    attempt_counts: bool = False
    whole_style: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """The job is rejected; `failure` is the failure class."""

    failure: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The job is requeued and the queue pauses: any other job would fail in the same way."""


@dataclass(frozen=True, slots=True)
class Fatal:
    """This process can't continue."""


Decision = Requeue | Reject | Pause | Fatal


def decide(
    error: StyledError,
    job: Job,
    phase: Phase,
    *,
    max_attempts: int,
    shortages: int = 0,
    node_losses: int = 0,
) -> Decision:
    """Return what happens to a job after an error.

    Args:
        error: Why it failed.
        job: The job; its `attempts` include the current one.
        phase: The job's phase when it failed.
        max_attempts: Number of counted attempts after which it is rejected.
        shortages: Number of consecutive memory shortages of this job before this one.
        node_losses: How often the node that this job was on was lost before.
    """
    match error:
        case InputRejected():
            return Reject("input")
        case InputIncomplete():
            return Reject("incomplete")  # the intake has already waited for it to be completed
        case JournalDamaged():
            return Fatal()
        case EngineDied():
            # The job resumes from its checkpoint on any free engine.
            if job.attempts >= max_attempts:
                return Reject("crash")
            return Requeue(0.0, "crash", attempt_counts=True)
        case NodeLost():
            # Nodes are switched off and preempted. Only a job that loses one after another is
            # suspected of killing them.
            counts = node_losses + 1 >= BLAMED_NODE_LOSSES
            if counts and job.attempts >= max_attempts:
                return Reject("crash")
            # At once the first time; later ones may be about the same node, not yet known as dead.
            wait = min(2.0**node_losses, MAX_NODE_SECONDS) if node_losses else 0.0
            return Requeue(wait, "crash", attempt_counts=counts)
        case StyleUnavailable():
            return Requeue(CONFIGURATION_RETRY_SECONDS, whole_style=True)
        case FolderNotWritable():
            again = job.failure == BLOCKED
            return Requeue(MAX_RETRY_SECONDS if again else CONFIGURATION_RETRY_SECONDS)
        case NameNotSupported():
            return Requeue(MAX_RETRY_SECONDS)
        case MemoryShortage():
            # Other photos may be smaller: only this job waits, with a growing delay.
            return Requeue(retry_seconds(shortages))
        case InboxUnavailable() | DiskNearlyFull() | DiskReadOnly():
            return Pause()
        case ResourceUnavailable():
            # A single unreadable file must not stop all other jobs.
            return Requeue(UNREADABLE_SECONDS) if phase is Phase.PREPARING else Pause()
        case EngineFailure() | UnexpectedError():
            failure = "engine" if isinstance(error, EngineFailure) else "internal"
            if job.attempts >= max_attempts:
                return Reject(failure)
            return Requeue(retry_seconds(job.attempts - 1), failure, attempt_counts=True)
        case _:
            # For instance a size that the output format can't hold: a retry would fail too.
            return Reject("configuration")


def retry_seconds(failures_before: int) -> float:
    """Return the delay after a failure that follows `failures_before` others."""
    return float(min(FIRST_RETRY_SECONDS * 2 ** min(failures_before, 10), MAX_RETRY_SECONDS))
