"""Ends attempts: a job becomes done, rejected or cancelled, or is requeued."""

from __future__ import annotations

from typing import Protocol

import structlog

from styled.errors import EngineDied, MemoryShortage, NodeLost, StyledError
from styled.job_io.io_context import IoContext
from styled.job_io.prepare_request import PrepareRequest
from styled.job_io.requests import ReleaseRequest, UnpublishRequest
from styled.jobs.failure_policy import Fatal, Pause, Reject, Requeue, decide
from styled.jobs.pause import Pauses
from styled.jobs.pending_effects import PendingEffects
from styled.jobs.running import EndReason, RunningJob, RunningJobs
from styled.journal.job import BLOCKED, ON_REQUEST, Job, JobFinished, JobState, Phase

log = structlog.get_logger()


class JobObserver(Protocol):
    """Receives notifications about jobs."""

    def job_finished(self, finished: JobFinished) -> None:
        """Called when a job has ended and this is durable in the journal."""

    def attempt_failed(self, failure: str) -> None:
        """Called when an attempt has failed and will be retried."""


class JobFinisher:
    """Ends attempts.

    Attributes:
        rejected: Number of jobs that have been rejected so far.
    """

    def __init__(
        self,
        context: IoContext,
        running: RunningJobs,
        pending: PendingEffects,
        pauses: Pauses,
        observer: JobObserver,
    ) -> None:
        """Remove ended jobs from `running`, and add the writes and requests to `pending`."""
        self._context = context
        self._journal = context.journal
        self._running = running
        self._pending = pending
        self._pauses = pauses
        self._observer = observer
        self._shortages: dict[str, int] = {}  # job id -> consecutive memory shortages
        self._node_losses: dict[str, int] = {}  # job id -> how often its node was lost
        self.rejected = 0

    def interrupted(self, running: RunningJob) -> None:
        """Requeue a stopped job without counting the attempt; it resumes from its checkpoint."""
        if running.is_cancelled:
            self.cancel(running)
            return
        self._requeue(running, attempt_counts=False)
        log.info("job.interrupted", resumes=True)

    def failed(self, running: RunningJob, error: StyledError) -> None:
        """Requeue or reject a failed job, or pause the queue, as `failure_policy` decides.

        Raises:
            StyledError: this process can't continue.
        """
        job, max_attempts = running.job, self._context.config.queue.max_attempts
        if traceback := getattr(error, "traceback", None):
            log.error("job.internal_error", exception=traceback)
        if running.is_cancelled:
            self.cancel(running)
            return
        decision = decide(
            error, job, running.phase, max_attempts=max_attempts,
            shortages=self._shortages.get(job.id, 0),
            node_losses=self._node_losses.get(job.id, 0),
        )  # fmt: skip
        match decision:
            case Fatal():
                raise error
            case Pause():
                self._requeue(running, attempt_counts=False)
                self._pauses.pause(error, running.request)
            case Reject(failure):
                self.reject(running, error, failure)
            case Requeue():
                self._try_again(running, error, decision)

    def engine_lost(self, running: RunningJob, error: StyledError) -> None:
        """Handle the loss of the engine that painted a job.

        The job may be the cause, so the attempt counts, unless the engine's whole node is gone.
        """
        if isinstance(error, NodeLost):
            self.failed(running, error)
            return
        self.failed(running, EngineDied(
            f"the engine {running.engine_name} died while it worked on this: {error.message}",
            *error.remedies,
        ))  # fmt: skip

    def cancel(self, running: RunningJob) -> None:
        """End a job that was cancelled on request; its photo moves to `rejected`."""
        self.end_without_result(running, EndReason(
            JobState.CANCELLED, "cancelled on request", ON_REQUEST,
            ("styled retry brings the photo back",),
        ))  # fmt: skip

    def cancel_queued(self, job: Job) -> None:
        """End a queued job that was cancelled on request."""
        running = RunningJob(job, style=None, is_cancelled=True)
        if job.result is None:
            self.cancel(running)
        else:  # a process may have died just after publishing its result
            self._running.add(running)
            running.request = PrepareRequest(job, self._context, style=None, is_concurrent=False)
            self._pending.requests.append(running.request)

    def unpublished(self, running: RunningJob) -> None:
        """End a job whose incomplete result has been removed from the outbox."""
        assert running.end_reason is not None, "only jobs that end are unpublished"
        self._finish_without_result(running, running.end_reason)

    def _try_again(self, running: RunningJob, error: StyledError, decision: Requeue) -> None:
        job, not_before = running.job, self._context.now() + decision.wait_seconds
        self._requeue(
            running, reason=error.message, failure=decision.failure, remedies=error.remedies,
            not_before=not_before, attempt_counts=decision.attempt_counts,
        )  # fmt: skip
        if decision.whole_style:
            self._pending.write(
                self._journal.postpone_style, job.style, reason=error.message,
                remedies=error.remedies, not_before=not_before,
            )  # fmt: skip
        if isinstance(error, MemoryShortage):
            self._shortages[job.id] = self._shortages.get(job.id, 0) + 1
        if isinstance(error, NodeLost):
            self._node_losses[job.id] = self._node_losses.get(job.id, 0) + 1
        if decision.failure == BLOCKED:
            log.info("job.postponed", reason=error.message, retry_seconds=decision.wait_seconds)
            return
        self._observer.attempt_failed(decision.failure)
        log.warning(
            "job.attempt_failed", reason=error.message, failure=decision.failure,
            attempts=job.attempts, retry_seconds=decision.wait_seconds,
        )  # fmt: skip

    def _requeue(self, running: RunningJob, **details: object) -> None:
        self._running.remove(running.job.id)
        self._pending.write(self._journal.requeue, running.job, **details)

    def reject(self, running: RunningJob, error: StyledError, failure: str) -> None:
        """Reject a job; `failure` is the failure class."""
        reason = error.message
        if failure in ("engine", "internal"):
            reason = f"{reason} (after {running.job.attempts} attempts)"
        self.end_without_result(
            running, EndReason(JobState.REJECTED, reason, failure, tuple(error.remedies))
        )

    def end_without_result(self, running: RunningJob, end_reason: EndReason) -> None:
        """Reject or cancel a job, after removing what it has left in the outbox."""
        running.end_reason, running.prepared = end_reason, None
        if running.job.result is None and running.phase is not Phase.PUBLISHING:
            self._finish_without_result(running, end_reason)
        else:
            running.request = UnpublishRequest(running.job, self._context)
            self._pending.requests.append(running.request)

    def _finish_without_result(self, running: RunningJob, end_reason: EndReason) -> None:
        self.finish(running, end_reason.state, end_reason)
        job = running.job
        if end_reason.state is JobState.REJECTED:
            self.rejected += 1
            log.warning(
                "job.rejected", reason=end_reason.reason, remedies=list(end_reason.remedies),
                failure=end_reason.failure, attempts=job.attempts,
            )  # fmt: skip
        else:
            log.info("job.cancelled", reason=end_reason.reason, failure=end_reason.failure,
                     attempts=job.attempts)  # fmt: skip

    def finish(
        self,
        running: RunningJob,
        state: JobState,
        end_reason: EndReason | None = None,
        **figures: object,
    ) -> None:
        """End a job; `figures` are further fields of `JobFinished`."""
        job, now = running.job, self._context.now()
        self._running.remove(job.id)
        self._shortages.pop(job.id, None)
        self._node_losses.pop(job.id, None)
        reason, failure = (end_reason.reason, end_reason.failure) if end_reason else (None, None)
        remedies = end_reason.remedies if end_reason else ()
        self._pending.write(
            self._journal.finish, job, state, now, reason=reason, failure=failure,
            remedies=remedies,
        )  # fmt: skip
        if state is JobState.DONE:
            figures.setdefault("degraded", job.degraded)
        self._pending.finished_jobs.append(JobFinished(job, state, failure, now, **figures))  # type: ignore[arg-type]  # its fields
        self._pending.requests.append(ReleaseRequest(job, self._context))
