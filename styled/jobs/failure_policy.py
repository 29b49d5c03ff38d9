"""What becomes of a job whose preparing, painting or publishing has failed: one table."""

from __future__ import annotations

from dataclasses import dataclass

from styled.errors import (
    EngineDied,
    EngineFailure,
    FolderNotWritable,
    InboxUnavailable,
    InputIncomplete,
    InputRejected,
    JournalDamaged,
    MemoryShortage,
    PlaceRefused,
    ResourceUnavailable,
    StyledError,
    StyleUnavailable,
    UnexpectedError,
)
from styled.jobs.job import WAITING, Job, Phase

UNREADABLE_SECONDS = 5.0
"""How long a job waits whose file can't be read just now."""

MENDED_SECONDS = 30.0
"""How long a job waits whose style or folder can't be used just now: until somebody mends that."""

FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 300.0
"""How long a job waits after its first failure, or where there is not enough memory for it: twice
as long after each further one, up to the longest. Others are done meanwhile."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """It is tried again.

    Attributes:
        wait_seconds: Not before that.
        failure: The class of the reason.
        attempt_counts: False where the job is not to blame.
        whole_style: All queued jobs of its style would fail in the same way: they wait as well.
    """

    wait_seconds: float
    failure: str = WAITING
    attempt_counts: bool = False
    whole_style: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """It has ended; `failure` is the class of the reason."""

    failure: str


@dataclass(frozen=True, slots=True)
class Pause:
    """It is nobody's fault and would hit all others: the job is requeued, the queue pauses."""


@dataclass(frozen=True, slots=True)
class Fatal:
    """This process can't go on."""


Decision = Requeue | Reject | Pause | Fatal


def decide(
    error: StyledError, job: Job, phase: Phase, *, max_attempts: int, shortages: int = 0
) -> Decision:
    """Return what becomes of a job.

    Args:
        error: What has gone wrong.
        job: Its `attempts` include the current one.
        phase: In which it was.
        max_attempts: After so many that count, it is rejected.
        shortages: How often in a row it has lacked memory before.
    """
    match error:
        case InputRejected():
            return Reject("input")
        case InputIncomplete():
            return Reject("incomplete")  # intake has waited for the rest of it already
        case JournalDamaged():
            return Fatal()
        case EngineDied():
            # It goes on from its checkpoint, on whichever engine is free.
            if job.attempts >= max_attempts:
                return Reject("crash")
            return Requeue(0.0, "crash", attempt_counts=True)
        case StyleUnavailable():
            return Requeue(MENDED_SECONDS, whole_style=True)
        case FolderNotWritable():
            again = job.failure == WAITING
            return Requeue(LONGEST_RETRY_SECONDS if again else MENDED_SECONDS)
        case PlaceRefused():
            return Requeue(LONGEST_RETRY_SECONDS)
        case MemoryShortage():
            # Others may be smaller: only this one waits, ever longer.
            return Requeue(retry_seconds(shortages))
        case InboxUnavailable():
            return Pause()
        case ResourceUnavailable():
            # One file that can't be read must not stop all others.
            return Requeue(UNREADABLE_SECONDS) if phase is Phase.PREPARING else Pause()
        case EngineFailure() | UnexpectedError():
            failure = "engine" if isinstance(error, EngineFailure) else "internal"
            if job.attempts >= max_attempts:
                return Reject(failure)
            return Requeue(retry_seconds(job.attempts - 1), failure, attempt_counts=True)
        case _:
            # Such as a size that the output format can't hold: the next try would be the same.
            return Reject("configuration")


def retry_seconds(failures_before: int) -> float:
    """Return how long to wait after so many failures and one more."""
    return float(min(FIRST_RETRY_SECONDS * 2 ** min(failures_before, 10), LONGEST_RETRY_SECONDS))
