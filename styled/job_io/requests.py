"""The requests that the scheduler makes to the I/O pool; each holds everything that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from styled.errors import FolderNotWritable, InputStuck, NameNotSupported
from styled.job_io.io_context import IoContext
from styled.job_io.job_log import log_context_of
from styled.job_io.protocols import SendHeartbeat
from styled.job_io.publication import Publication, Published
from styled.journal.job import Job

ENCODED_PIXELS_PER_SECOND = 100_000
"""Minimum speed of encoding, for the heartbeat. HEIC reaches 280,000 on a slow core."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request about one job."""

    job: Job
    context: IoContext

    @property
    def log_context(self) -> dict[str, str]:
        """Keys that are added to each log line."""
        return log_context_of(self.job)


@dataclass(frozen=True, slots=True)
class PublishRequest(JobRequest):
    """Encode a painting and publish it with its sidecar."""

    part: ClassVar[str] = "publish"

    publication: Publication

    def run(self, heartbeat: SendHeartbeat) -> Published:
        """Execute the request; on failure save the painting, so that it is not painted again.

        Raises:
            StyledError: as `publish`.
        """
        from styled.job_io.publish import publish

        publication = self.publication
        heartbeat(publication.prepared.pixels / ENCODED_PIXELS_PER_SECOND)
        try:
            return publish(publication, self.context)
        except Exception:
            task = publication.prepared.task(self.job.id)
            self.context.files.save_painted(task, publication.engine_info, publication.painted)
            raise


@dataclass(frozen=True, slots=True)
class UnpublishRequest(JobRequest):
    """Remove from the outbox the incomplete result of a job that ends without one."""

    part: ClassVar[str] = "cleanup"

    def run(self, heartbeat: SendHeartbeat) -> None:
        """Execute the request.

        Raises:
            ResourceUnavailable: the outbox is read-only or gone.
        """
        publisher = self.context.publisher
        # Read the job again: its result's path may have been reserved after it was claimed.
        job = self.context.journal.job(self.job.id) or self.job
        if job.result is not None:
            publisher.unpublish(publisher.outbox / job.result, job.id, job.result_sha256)


Stuck = InputStuck | NameNotSupported | FolderNotWritable
"""Errors that keep a single input in the inbox; its release is retried now and then."""


@dataclass(frozen=True, slots=True)
class ReleaseRequest(JobRequest):
    """Delete the files of a job that has ended, and release its input from the inbox.

    Attributes:
        again: As in `InputCleanup.release_input`.
    """

    part: ClassVar[str] = "cleanup"

    again: bool = False

    def run(self, heartbeat: SendHeartbeat) -> None:
        """Execute the request.

        Raises:
            Stuck: only this input can't be released.
            ResourceUnavailable: its destination is full, read-only or gone.
        """
        self.context.files.drop(self.job.id)
        self.context.cleanup.release_input(self.job, again=self.again)


@dataclass(frozen=True, slots=True)
class CleanupRequest:
    """Release all inputs whose jobs have ended, and prune old jobs from the journal."""

    part: ClassVar[str] = "cleanup"

    context: IoContext

    @property
    def log_context(self) -> dict[str, str]:
        """Empty, since it concerns many jobs."""
        return {}

    def run(self, heartbeat: SendHeartbeat) -> tuple[int, list[tuple[Job, Stuck]]]:
        """Execute the request.

        Returns:
            The number of pruned jobs, and the jobs whose input can't be released.

        Raises:
            ResourceUnavailable: the journal, the inbox or a destination can't be used.
        """
        context = self.context
        stuck: list[tuple[Job, Stuck]] = []
        for job in context.journal.finished_in_inbox():
            if context.is_stopping.is_set():
                return 0, stuck
            heartbeat(0.0)
            try:
                context.cleanup.release_input(job, again=True)
            except (InputStuck, NameNotSupported, FolderNotWritable) as error:
                stuck.append((job, error))
        before = context.now() - context.retention.seconds
        return context.journal.prune(before=before, keep=context.retention.jobs), stuck


@dataclass(frozen=True, slots=True)
class GalleryRequest:
    """Add finished jobs to the gallery."""

    part: ClassVar[str] = "gallery"

    context: IoContext

    @property
    def log_context(self) -> dict[str, str]:
        """Empty, since it concerns many jobs."""
        return {}

    def run(self, heartbeat: SendHeartbeat) -> bool:
        """Update the gallery for a limited time; return whether there may be more to add.

        Raises:
            ResourceUnavailable: the journal can't be used.
        """
        updater = self.context.gallery_updater
        return updater is not None and updater.update(heartbeat)
