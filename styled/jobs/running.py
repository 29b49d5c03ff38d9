"""In-memory state of the jobs that are claimed and have not ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from styled.config import OutputConfig, Style
from styled.engine_api import EngineInfo, Progress
from styled.eta import EtaEstimator, EtaKey
from styled.files import FileStamps
from styled.jobs.degradations import JobDegradations
from styled.journal.job import Job, JobProgress, JobState, Phase
from styled.sidecar import FileInfo, SettingsInfo

if TYPE_CHECKING:
    from styled.codec.prepare import Prepared
    from styled.job_io.prepare_request import PrepareRequest
    from styled.job_io.requests import PublishRequest, UnpublishRequest


@dataclass(frozen=True, slots=True)
class EndReason:
    """State and reason of a job that ends without a result; see `Journal.finish`."""

    state: JobState
    reason: str
    failure: str | None = None
    remedies: tuple[str, ...] = ()


@dataclass(slots=True)
class RunningJob:
    """A claimed job.

    Attributes:
        style: Its style; None: no longer configured.
        style_names: The names of all styles when it was claimed.
        request: Its current or last request to the I/O pool.
        end_reason: Set while it only waits for its result, which has no sidecar, to be removed from
            the outbox.
        must_run_alone: Whether no other job may run beside it, because it may have killed a
            process.
        is_deferred: Whether it is too large to be prepared beside others. It waits until no other
            job is active.
        is_cancelled: Whether it ends as soon as its current request or task has ended.
        publishes_alone: Whether it is too large to be published while another job is painted.
        stamps: Of the files that were read for it.
        output: How its result is saved; set once it is prepared.
        settings, mask: Those beside the photo, likewise.
        engine_name: Name of the slot that paints it.
        assignment_id: Number of that assignment.
        progress: Set once it is being painted.
        prepare_since, ready_since, paint_since: Start times in seconds of `IoContext.clock`.
    """

    job: Job
    style: Style | None
    style_names: frozenset[str] = frozenset()
    phase: Phase = Phase.PREPARING
    degradations: JobDegradations = field(default_factory=JobDegradations)
    request: PrepareRequest | PublishRequest | UnpublishRequest | None = None
    end_reason: EndReason | None = None
    must_run_alone: bool = False
    is_deferred: bool = False
    is_cancelled: bool = False
    publishes_alone: bool = False
    prepared: Prepared | None = None
    stamps: FileStamps = ()
    output: OutputConfig | None = None
    settings: SettingsInfo | None = None
    mask: FileInfo | None = None
    engine_name: str | None = None
    assignment_id: int = 0
    engine_info: EngineInfo | None = None
    eta: EtaEstimator | None = None
    eta_key: EtaKey | None = None
    preview: str | None = None
    progress: JobProgress | None = None
    prepare_since: float = 0.0
    ready_since: float = 0.0
    paint_since: float = 0.0

    def show_progress(self, progress: Progress, seconds_left: float | None) -> JobProgress:
        """Set `progress` to what the engine has reported, and return it."""
        self.progress = JobProgress(
            fraction=progress.fraction,
            scale=progress.scale,
            scales=progress.scales,
            width=progress.size.width,
            height=progress.size.height,
            step=progress.step,
            steps=progress.steps,
            loss=progress.loss,
            step_seconds=progress.step_seconds,
            seconds_left=seconds_left,
            preview=self.preview,
        )
        return self.progress


@dataclass(slots=True)
class SlotState:
    """The state of a slot.

    Attributes:
        info: Of its engine; None while it has none.
        assignment_id: Number of the assignment that it runs; None if it runs none.
        problem: Error message, if its engine was lost.
        is_given_up: Whether a lost engine will not be replaced.
    """

    info: EngineInfo | None = None
    assignment_id: int | None = None
    problem: str | None = None
    is_given_up: bool = False


@dataclass(slots=True)
class RunningJobs:
    """All running jobs, in the order in which they were claimed."""

    _jobs: dict[str, RunningJob] = field(default_factory=dict)
    _by_assignment: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(tuple(self._jobs.values()))

    def add(self, running: RunningJob) -> None:
        """Add a job that was just claimed."""
        self._jobs[running.job.id] = running

    def get(self, job_id: str) -> RunningJob | None:
        """Return a job by its id, None if it has ended or was requeued."""
        return self._jobs.get(job_id)

    def remove(self, job_id: str) -> None:
        """Remove a job that has ended or is requeued."""
        running = self._jobs.pop(job_id, None)
        if running is not None:
            self._by_assignment.pop(running.assignment_id, None)

    def of_assignment(self, assignment_id: int) -> RunningJob | None:
        """Return the job that an assignment is painting, None if it is no longer being painted."""
        running = self._jobs.get(self._by_assignment.get(assignment_id, ""))
        if (
            running is None
            or running.assignment_id != assignment_id
            or running.phase is not Phase.PAINTING
        ):
            return None
        return running

    def index_assignment(self, running: RunningJob) -> None:
        """Index a job by the number of its assignment, for `of_assignment`."""
        self._by_assignment[running.assignment_id] = running.job.id

    def in_phase(self, *phases: Phase) -> list[RunningJob]:
        """Return the jobs in any of these phases, except those with an `end_reason`."""
        return [
            one for one in self._jobs.values() if one.phase in phases and one.end_reason is None
        ]

    @property
    def is_exclusive(self) -> bool:
        """Whether one of the jobs is alone or deferred, so that no other may be claimed."""
        return any(one.must_run_alone or one.is_deferred for one in self._jobs.values())
