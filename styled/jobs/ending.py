"""The end of a job, as others count it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from styled.degradation import Degradation
from styled.jobs.job import Job, JobState


@dataclass(frozen=True, slots=True)
class Ending:
    """What there is to say of a job that has just ended.

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


OnEnded = Callable[[Ending], None]
