"""Moves running jobs from phase to phase, from claim to publication.

Nothing is written or started here. Journal writes, requests and assignments are added to
`PendingEffects`; the scheduler commits the writes at the end of its turn and then sends the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import structlog

from styled.config import Style
from styled.degradation import Degradation
from styled.engine_api import EngineInfo, Painted, Progress
from styled.errors import StyledError
from styled.eta import EtaEstimator, EtaHistories, EtaKey
from styled.files import readable
from styled.job_io.input_cleanup import STYLE_REMOVED
from styled.job_io.io_context import IoContext
from styled.job_io.job_log import job_log_context, log_context_of
from styled.job_io.prepare_request import (
    AlreadyPublished,
    InputChanged,
    NotPublished,
    PrepareRequest,
    PrepareResult,
    Ready,
    TooLargeToShare,
)
from styled.job_io.publication import Publication, Published
from styled.job_io.requests import PublishRequest
from styled.jobs.degradations import ServiceDegradations
from styled.jobs.events import Assignment
from styled.jobs.job_finisher import JobFinisher
from styled.jobs.pending_effects import PendingEffects
from styled.jobs.progress_log import log_published, log_scale
from styled.jobs.running import EndReason, RunningJob, RunningJobs
from styled.journal.job import Job, JobState, Phase

log = structlog.get_logger()

PREVIEW_SECONDS = 5.0
"""Minimum interval between previews of a running job."""


class Lifecycle:
    """Applies events to running jobs, from claim to publication.

    Attributes:
        running: All running jobs.
        service: The current degradations of the service, without those of engines.
    """

    def __init__(
        self,
        context: IoContext,
        running: RunningJobs,
        pending: PendingEffects,
        finisher: JobFinisher,
    ) -> None:
        """Add writes, requests and assignments to `pending`; end jobs through `finisher`."""
        self._context = context
        self._journal = context.journal
        self._pending = pending
        self._finisher = finisher
        self._histories = EtaHistories()
        self._assignment_ids = count(1)
        self.running = running
        self.service = ServiceDegradations()

    # Preparing

    def begin(self, job: Job, styles: Mapping[str, Style]) -> None:
        """Start to prepare a job that was just claimed; `styles` are those of the last reload."""
        style = styles.get(job.style)
        with job_log_context(log_context_of(job)):
            log.info("job.claimed", attempts=job.attempts)
        is_concurrent = bool(self.running.in_phase(Phase.PREPARING, Phase.READY, Phase.PAINTING))
        names = frozenset(styles)
        running = RunningJob(job, style, names, must_run_alone=job.is_suspect)
        running.prepare_since = self._context.clock()
        self.running.add(running)
        # A process may have died just after publishing, in the last attempt: without a style, the
        # request only checks for a published result, and the job is rejected if there is none.
        if job.attempts > self._context.config.queue.max_attempts:
            style = None
        self._request(running, PrepareRequest(job, self._context, style, is_concurrent, names))

    def prepare_deferred(self, running: RunningJob) -> None:
        """Prepare a job that is too large to run beside others, now that no other is active."""
        running.is_deferred = False
        names = running.style_names
        request = PrepareRequest(running.job, self._context, running.style, False, names)
        self._request(running, request)

    def prepared(self, running: RunningJob, result: PrepareResult) -> None:
        """Handle the result of a job's `PrepareRequest`."""
        job = running.job
        match result:
            case AlreadyPublished():
                self._finisher.finish(running, JobState.DONE)
                log.info("job.found_published", result=readable(job.result or ""),
                         attempts=job.attempts)  # fmt: skip
            case _ if running.is_cancelled:
                self._finisher.cancel(running)
            case NotPublished():
                self._cannot_begin(running)
            case InputChanged(reason):
                self._finisher.end_without_result(running, EndReason(JobState.CANCELLED, reason))
            case TooLargeToShare():
                running.is_deferred = True
            case Ready(prepared, degraded, publishes_alone, stamps, output, settings, mask):
                running.prepared, running.publishes_alone = prepared, publishes_alone
                running.stamps, running.output = stamps, output
                running.settings, running.mask = settings, mask
                running.degradations.note("inputs", degraded)
                running.ready_since = self._context.clock()
                self._set_phase(running, Phase.READY)

    def _cannot_begin(self, running: RunningJob) -> None:
        job = running.job
        if running.style is None:
            reason = f'the style "{job.style}" is no longer configured'
            remedy = "configure it again, and the photo is painted in it"
            self._finisher.end_without_result(
                running, EndReason(JobState.CANCELLED, reason, STYLE_REMOVED, (remedy,))
            )
            return
        begun = job.attempts - 1
        running.job = replace(job, attempts=begun)  # this attempt ends before it begins
        self._finisher.reject(
            running,
            StyledError(
                f"styled died while it processed this photo, {begun} "
                f"{'time' if begun == 1 else 'times'}",
                "see the log for the cause, then drop the photo again",
            ),
            "crash",
        )

    # Painting

    def assign(self, running: RunningJob, engine_name: str, info: EngineInfo) -> int:
        """Assign a prepared job to a slot; return the number of the assignment."""
        prepared, config = running.prepared, self._context.config
        assert prepared is not None, "only jobs that are ready are assigned"
        assert running.output is not None, "likewise"
        running.engine_name, running.engine_info = engine_name, info
        running.assignment_id = next(self._assignment_ids)
        self.running.index_assignment(running)
        running.paint_since = self._context.clock()
        self.record_degraded(running)
        task = replace(
            prepared.task(running.job.id),
            checkpoint_seconds=config.queue.checkpoint_seconds,
            preview_seconds=PREVIEW_SECONDS,
            frame_every_steps=running.output.keep_frames,
        )
        context = log_context_of(running.job)
        assignment = Assignment(running.assignment_id, task, context, running.stamps)
        self._pending.assignments.append((engine_name, assignment))
        self._set_phase(running, Phase.PAINTING, engine_name)
        return running.assignment_id

    def record_degraded(self, running: RunningJob, painting: tuple[Degradation, ...] = ()) -> None:
        """Collect a job's degradations and store them if they have changed.

        Args:
            running: The job.
            painting: All degradations that its engine has reported for this task.
        """
        known = running.degradations
        if running.engine_info is not None:
            known.note("service", (*running.engine_info.degraded, *self.service.all()))
        known.note("painting", painting)
        if known.all() != running.job.degraded:
            running.job = replace(running.job, degraded=known.all())
            self._pending.write(self._journal.set_degraded, running.job, known.all())

    def restarted(self, running: RunningJob, reason: str) -> None:
        """Record that a job has lost the work of an earlier start."""
        lost = Degradation("restarted", f"restarted from the beginning: {reason}")
        running.degradations.note("checkpoint", (lost,))
        self.record_degraded(running)

    def progressed(self, running: RunningJob, progress: Progress) -> None:
        """Handle the progress of a painting."""
        if progress.finished:
            log_scale(progress)
        if running.eta is None or running.eta_key is None:
            assert running.prepared is not None, "it is painted"
            assert running.engine_info is not None, "likewise"
            recipe, engine = running.prepared.recipe, running.engine_info
            running.eta_key = EtaKey.of(recipe, engine.device_model, progress.plan[-1])
            history = self._histories.find(recipe, running.eta_key, engine.weights_source)
            running.eta = EtaEstimator(history)
        running.eta.note(progress)
        shown = running.show_progress(progress, running.eta.seconds_left())
        self._pending.write(self._journal.update_progress, running.job, shown)

    def previewed(self, running: RunningJob, path: Path) -> None:
        """Handle a new preview; only the first one is written to the journal at once."""
        is_new, running.preview = running.preview is None, readable(path)
        if is_new and running.progress is not None:
            running.progress = replace(running.progress, preview=running.preview)
            self._pending.write(self._journal.update_progress, running.job, running.progress)

    def painted(self, running: RunningJob, painted: Painted) -> None:
        """Request the publication of a finished painting."""
        if running.is_cancelled:
            self._finisher.cancel(running)
            return
        if running.eta is not None and running.eta_key is not None:
            self._histories.learn(running.eta_key, running.eta.learnt())
        self.record_degraded(running, painted.degraded)
        assert running.prepared is not None, "it was painted"
        assert running.engine_info is not None, "likewise"
        assert running.output is not None, "likewise"
        publication = Publication(
            running.job,
            running.prepared,
            painted,
            running.engine_info,
            running.engine_name or "",
            running.output,
            running.degradations.all(),
            running.settings,
            running.mask,
            prepare_seconds=running.ready_since - running.prepare_since,
            ready_seconds=running.paint_since - running.ready_since,
            optimise_seconds=self._context.clock() - running.paint_since,
        )
        self._request(running, PublishRequest(running.job, self._context, publication))
        self._set_phase(running, Phase.PUBLISHING)

    def published(self, running: RunningJob, request: PublishRequest, published: Published) -> None:
        """Handle the result of a job's `PublishRequest`: the job is done."""
        painted = request.publication.painted
        seconds = published.timing.model_dump()
        self._finisher.finish(
            running, JobState.DONE, phase_seconds=seconds, steps=painted.steps,
            peak_memory_bytes=painted.peak_memory_bytes, degraded=published.degraded,
        )  # fmt: skip
        log_published(running, painted, published, seconds)

    def _request(self, running: RunningJob, request: PrepareRequest | PublishRequest) -> None:
        running.request = request
        self._pending.requests.append(request)

    def _set_phase(self, running: RunningJob, phase: Phase, engine: str | None = None) -> None:
        running.phase = phase
        self._pending.write(self._journal.set_phase, running.job, phase, engine)
