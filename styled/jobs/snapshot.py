"""A snapshot of the queue and its engines, for health monitor and gallery: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from styled.degradation import Degradation
from styled.journal.job import Job, JobProgress, JobState


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """One engine.

    Attributes:
        name: Of its slot.
        device: As torch names it; None while the engine is lost.
        degraded: The degradations of the engine.
        node: The machine of the cluster that it runs on; None: that of the daemon.
        problem: Error message, if the engine was lost.
        job: The job that it paints.
        progress: Of that job.
    """

    name: str
    device: str | None = None
    degraded: tuple[Degradation, ...] = ()
    node: str | None = None
    problem: str | None = None
    job: Job | None = None
    progress: JobProgress | None = None


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The queue and its engines.

    Attributes:
        paused: Why the queue is paused; None: it is not.
        jobs: Style -> state -> number of queued or running jobs.
        oldest_submitted_at: Unix time when the oldest queued or running job was submitted; None if
            there is none.
        last_success_at: Unix time when the last job was done; None if there is none.
        degraded: The degradations of the service, without those of engines.
    """

    engines: tuple[EngineSnapshot, ...] = ()
    paused: str | None = None
    jobs: Mapping[str, Mapping[JobState, int]] = field(default_factory=dict)
    oldest_submitted_at: float | None = None
    last_success_at: float | None = None
    degraded: tuple[Degradation, ...] = ()

    def count(self, state: JobState) -> int:
        """Return the number of jobs in a state, over all styles."""
        return sum(counts.get(state, 0) for counts in self.jobs.values())


class SnapshotSource(Protocol):
    """The part of the scheduler that other threads read."""

    @property
    def snapshot(self) -> QueueSnapshot:
        """The state of the queue and the engines."""
