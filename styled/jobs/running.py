"""The jobs that have been claimed and have not ended, as the scheduler keeps them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from styled.config import Style
from styled.engine_api import EngineInfo
from styled.jobs.degradations import JobDegradations
from styled.jobs.eta import EtaEstimator, Kind
from styled.jobs.job import Job, JobProgress, JobState, Phase
from styled.jobs.prefetch import Stamps

if TYPE_CHECKING:
    from styled.jobs.prepare import Prepared
    from styled.jobs.prepare_request import PrepareRequest
    from styled.jobs.requests import PublishRequest, WithdrawRequest


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ends without a result; see `Journal.finish`."""

    state: JobState
    reason: str
    failure: str | None = None
    remedies: tuple[str, ...] = ()


@dataclass(slots=True)
class RunningJob:
    """A claimed job.

    Attributes:
        request: What the I/O pool does for it, or did last.
        ending: Set once it is only waited for what it has left in the outbox to be taken back.
        is_alone: Nothing else is done beside it: it may be what has killed a process.
        is_deferred: It is too large to be prepared beside others; it waits for its turn.
        is_cancelled: It ends as soon as what is being done for it is done.
        stamps: Of what was read for it.
        publishes_alone: It is too large to be published while another is painted.
        slot: The name of the slot that paints it.
        run: The number of that assignment.
        progress: Where it stands, once it is being painted.
        prepare_since, paint_since: By the clock that measures.
    """

    job: Job
    style: Style | None
    phase: Phase = Phase.PREPARING
    degradations: JobDegradations = field(default_factory=JobDegradations)
    request: PrepareRequest | PublishRequest | WithdrawRequest | None = None
    ending: Ending | None = None
    is_alone: bool = False
    is_deferred: bool = False
    is_cancelled: bool = False
    publishes_alone: bool = False
    prepared: Prepared | None = None
    stamps: Stamps = ()
    slot: str | None = None
    run: int = 0
    engine: EngineInfo | None = None
    eta: EtaEstimator | None = None
    eta_kind: Kind | None = None
    preview: str | None = None
    progress: JobProgress | None = None
    prepare_since: float = 0.0
    paint_since: float = 0.0


@dataclass(slots=True)
class SlotState:
    """What the scheduler knows of a slot.

    Attributes:
        info: Of its engine; None while it has none.
        run: The number of the assignment that it works on; None while it has none.
        trouble: Why it has no engine, in words.
        is_gone: Whether it will not get another one.
    """

    info: EngineInfo | None = None
    run: int | None = None
    trouble: str | None = None
    is_gone: bool = False


@dataclass(slots=True)
class RunningJobs:
    """All of them, in the order in which they were claimed."""

    _jobs: dict[str, RunningJob] = field(default_factory=dict)
    _by_run: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(tuple(self._jobs.values()))

    def add(self, running: RunningJob) -> None:
        """Take in a job that was just claimed."""
        self._jobs[running.job.id] = running

    def get(self, job_id: str) -> RunningJob | None:
        """Return a job, None if it has ended or was requeued meanwhile."""
        return self._jobs.get(job_id)

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended or goes back to the queue."""
        running = self._jobs.pop(job_id, None)
        if running is not None:
            self._by_run.pop(running.run, None)

    def of_run(self, run: int) -> RunningJob | None:
        """Return the job that is painted by an assignment, None if it is not any more."""
        running = self._jobs.get(self._by_run.get(run, ""))
        if running is None or running.run != run or running.phase is not Phase.PAINTING:
            return None
        return running

    def note_run(self, running: RunningJob) -> None:
        """Find a job by its assignment from now on."""
        self._by_run[running.run] = running.job.id

    def in_phase(self, *phases: Phase) -> list[RunningJob]:
        """Return those in any of some phases."""
        return [one for one in self._jobs.values() if one.phase in phases and one.ending is None]

    @property
    def is_exclusive(self) -> bool:
        """Whether nothing may be begun beside one of them."""
        return any(one.is_alone or one.is_deferred for one in self._jobs.values())
