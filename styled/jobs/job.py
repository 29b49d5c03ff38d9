"""A job: one photo to be painted in one style, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from styled.degradation import Degradation


class JobState(StrEnum):
    """queued -> running -> done | rejected | cancelled; running -> queued on a stop or crash."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """Where a running job is; it goes through them in this order."""

    PREPARING = "preparing"
    READY = "ready"
    PAINTING = "painting"
    PUBLISHING = "publishing"


ON_REQUEST = "cancelled"
"""The failure of a job that was cancelled because a person asked for it."""


WAITING = "waiting"
"""The failure of a queued job that waits for something to be mended; no attempt is counted."""


class Arrival(Protocol):
    """A settled input, as intake hands it on."""

    @property
    def path(self) -> str:
        """Relative to the inbox; bytes that are not UTF-8 as surrogate escapes."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def mtime_ns(self) -> int:
        """When it was last written, in nanoseconds since the epoch."""

    @property
    def destinations(self) -> Mapping[str, str]:
        """For each style that it is wanted in, the result's path below the style's folder."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Where a running job stands, for a person to look at.

    Attributes:
        fraction: How much of it is done, in [0, 1].
        scale: The present scale, counted from one, of `scales`.
        width: Of the present scale, in pixels.
        step: Steps done at this scale, of `steps` at most.
        loss: The weighted total, of the image that the last step started from.
        step_seconds: How long a step takes at this scale, None before it is known.
        seconds_left: An estimate, None as long as there is no ground for one.
        preview: A file with a small picture of how it looks, once there is one.
    """

    fraction: float
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


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the journal.

    Attributes:
        id: Unique for ever; it stands in the sidecar.
        input: Relative to the inbox; bytes that are not UTF-8 as surrogate escapes.
        size: Of the input in bytes. With `mtime_ns` it identifies what was dropped.
        mtime_ns: Of the input.
        style: The style's name.
        destination: Where the result belongs, below the style's folder in the outbox.
        attempts: How often it was begun, the present one included; stops do not count.
        submitted_at: Unix time, as all other times here.
        not_before: When a waiting job is next tried.
        result: Where its result is or will be, below the outbox.
        result_sha256: Of the result's bytes, once they are known.
        input_sha256: Of the bytes that were read and painted, once there is a result.
        original: Where its original is or will be: an absolute path.
        reason: Why it waits, was rejected or was cancelled, in one sentence.
        failure: The class of that reason, such as `input` or `engine`.
        fraction: How much of it is done, in [0, 1].
        progress: More about that, of a job that runs or did.
        cancel_requested: Whether a person wants it to end.
        phase: Where it is, as long as it runs.
        engine: The name of the engine that paints it, or did last.
        is_suspect: A process died while it worked on this job: it may be what has killed it, and
            runs with nothing beside it.
        degraded: In which ways the result is, or will be, less than what was asked for.
        remedies: What can be done about `reason`.
    """

    id: str
    input: str
    size: int
    mtime_ns: int
    style: str
    destination: str
    state: JobState
    attempts: int
    submitted_at: float
    not_before: float
    started_at: float | None
    finished_at: float | None
    result: str | None
    result_sha256: str | None
    input_sha256: str | None
    original: str | None
    reason: str | None
    failure: str | None
    fraction: float
    progress: JobProgress | None = None
    cancel_requested: bool = False
    phase: Phase | None = None
    engine: str | None = None
    is_suspect: bool = False
    degraded: tuple[Degradation, ...] = ()
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobFinished:
    """A job has just ended.

    Attributes:
        state: How it ended.
        failure: The class of the reason, where it was rejected or cancelled.
        at: Unix time.
        seconds: By phase: waited, prepare, optimise, publish. Empty unless it was painted.
        steps: Of the optimisation.
        peak_memory_bytes: While it was painted.
        degraded: In which ways the result is less than what was asked for.
    """

    job: Job
    state: JobState
    failure: str | None
    at: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    peak_memory_bytes: int = 0
    degraded: tuple[Degradation, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """What a sidecar in the outbox says of a finished job.

    Attributes:
        result: Relative to the outbox.
    """

    job_id: str
    style: str
    input_sha256: str
    result: str
    result_sha256: str
    degraded: tuple[Degradation, ...] = ()
