"""A job: one photo to be painted in one style, with its state and progress."""

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
    """The phases of a running job, in order."""

    PREPARING = "preparing"
    READY = "ready"
    PAINTING = "painting"
    PUBLISHING = "publishing"


BEFORE_PAINTING = (Phase.PREPARING, Phase.READY)

ON_REQUEST = "cancelled"
"""Failure class of a job that was cancelled on request."""


BLOCKED = "blocked"
"""Failure class of a queued job that waits until a problem is fixed; no attempt is counted."""


class SettledInputProtocol(Protocol):
    """A settled input, as submitted by the intake."""

    @property
    def path(self) -> str:
        """Relative to the inbox; bytes that are not UTF-8 as surrogate escapes."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def mtime_ns(self) -> int:
        """Modification time in nanoseconds since the epoch."""

    @property
    def destinations(self) -> Mapping[str, str]:
        """For each style to paint it in, the result's path relative to the style's folder."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Progress of a running job, for display.

    Attributes:
        fraction: Share of the whole work that is done, in [0, 1].
        scale: The current scale, counted from one, of `scales`.
        width: Of the current scale, in pixels; `height` likewise.
        step: Steps done at this scale, of `steps` at most.
        loss: Weighted total loss of the image that the last step started from.
        step_seconds: Duration of a step at this scale; None before it is known.
        seconds_left: Estimated remaining time; None while there is no basis for an estimate.
        preview: Path of a small picture of the current image; None before there is one.
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
        id: Unique for ever; also in the sidecar.
        input: Relative to the inbox; bytes that are not UTF-8 as surrogate escapes.
        size: Of the input in bytes. With path and `mtime_ns` it identifies the input.
        mtime_ns: Modification time of the input in nanoseconds since the epoch.
        style: The style's name.
        destination: Requested path of the result, relative to the style's folder in the outbox.
        attempts: Number of counted attempts, including the current one; stops do not count.
        submitted_at: Unix time, like all other times here.
        not_before: Earliest time of the next attempt.
        result: Path of the result, also if it is only reserved, relative to the outbox.
        result_sha256: Of the result's bytes, once they are known.
        input_sha256: Of the bytes that were read and painted, once there is a result.
        original: Absolute path that the original was or will be moved to.
        reason: Why it waits, was rejected or was cancelled, in one sentence.
        failure: Failure class of that reason, such as `input` or `engine`.
        fraction: Share of the work that is done, in [0, 1].
        progress: Details, if it runs or has run.
        cancel_requested: Whether cancelling was requested.
        phase: Current phase of a running job.
        engine: Name of the engine that paints it or was the last to paint it.
        is_suspect: Whether a process died while this job was running. The job may be the cause,
            so no other job runs beside it.
        degraded: The degradations of the result.
        remedies: What to do about `reason`.
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
    is_released: bool = False
    degraded: tuple[Degradation, ...] = ()
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The end of a job.

    Attributes:
        state: Its final state.
        failure: Failure class, if it was rejected or cancelled.
        at: Unix time.
        phase_seconds: Durations of waited, prepare, optimise and publish. Empty unless it was
            painted.
        steps: Optimisation steps.
        peak_memory_bytes: The engine's peak memory while painting.
        degraded: The degradations of the result.
    """

    job: Job
    state: JobState
    failure: str | None
    at: float
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    peak_memory_bytes: int = 0
    degraded: tuple[Degradation, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportedJob:
    """A finished job, as read from a sidecar in the outbox.

    Attributes:
        result: Relative to the outbox.
    """

    job_id: str
    style: str
    input_sha256: str
    result: str
    result_sha256: str
    degraded: tuple[Degradation, ...] = ()
