"""How the queue stands at one moment, for whoever watches over the daemon: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from styled.degradation import Degradation
from styled.jobs.job import Job, JobProgress, JobState
from styled.jobs.journal_queries import JournalReader


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """One engine.

    Attributes:
        device: Where it computes; None while it is gone.
        trouble: Why it is gone, in words.
        job: What it paints.
        degraded: In which ways it is less than what was asked for.
    """

    name: str
    device: str | None = None
    degraded: tuple[Degradation, ...] = ()
    trouble: str | None = None
    job: Job | None = None
    progress: JobProgress | None = None


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The queue and its engines.

    Attributes:
        paused: Why the queue is paused, in words; None: it is not.
        jobs: Style -> state -> how many are still to be done.
        oldest_submitted_at: Unix time; None where nothing is to be done.
        last_success_at: Unix time of the last job that was done.
        degraded: What the service does without, besides what engines say.
    """

    engines: tuple[EngineSnapshot, ...] = ()
    paused: str | None = None
    jobs: Mapping[str, Mapping[JobState, int]] = field(default_factory=dict)
    oldest_submitted_at: float | None = None
    last_success_at: float | None = None
    degraded: tuple[Degradation, ...] = ()

    def count(self, state: JobState) -> int:
        """Return how many jobs are in a state."""
        return sum(counts.get(state, 0) for counts in self.jobs.values())


def snapshot_of(
    journal: JournalReader,
    engines: tuple[EngineSnapshot, ...],
    paused: str | None,
    degraded: tuple[Degradation, ...],
) -> QueueSnapshot:
    """Return how the queue stands; see `QueueSnapshot`.

    Raises:
        ResourceUnavailable, JournalDamaged: the journal can't be read.
    """
    return QueueSnapshot(
        engines,
        paused,
        journal.waiting_by_style(),
        journal.oldest_waiting(),
        journal.last_finished(JobState.DONE),
        degraded,
    )
