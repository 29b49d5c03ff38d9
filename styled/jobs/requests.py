"""What the queue has done by the I/O pool: each request has all that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from styled.errors import FolderNotWritable, InputStuck, PlaceRefused
from styled.jobs.io_context import IoContext
from styled.jobs.job import Job
from styled.jobs.job_log import log_context_of
from styled.jobs.protocols import Beat
from styled.jobs.publication import Publication, Published

ENCODED_PIXELS_PER_SECOND = 100_000
"""How fast a result is encoded, at the least. HEIC makes 280,000 on a slow core."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request about one job."""

    job: Job
    context: IoContext

    @property
    def log_context(self) -> dict[str, str]:
        """What each line of the log says about it."""
        return log_context_of(self.job)


@dataclass(frozen=True, slots=True)
class PublishRequest(JobRequest):
    """Encode a painting and publish it with its sidecar."""

    part: ClassVar[str] = "publish"

    publication: Publication

    def run(self, beat: Beat) -> Published:
        """Do it; what can't be published just now is kept, so that it is not painted twice.

        Raises:
            StyledError: as `publish`.
        """
        from styled.jobs.publish import publish

        publication = self.publication
        beat(publication.prepared.pixels / ENCODED_PIXELS_PER_SECOND)
        try:
            return publish(publication, self.context)
        except Exception:
            task = publication.prepared.task(self.job.id)
            self.context.files.save_painting(task, publication.engine, publication.painted)
            raise


@dataclass(frozen=True, slots=True)
class WithdrawRequest(JobRequest):
    """Take back what lies in the outbox of a job that ends without a result."""

    part: ClassVar[str] = "cleanup"

    def run(self, beat: Beat) -> None:
        """Do it.

        Raises:
            ResourceUnavailable: the outbox is read-only or gone.
        """
        publisher = self.context.publisher
        # As the journal has it: the name was perhaps chosen after the job was claimed.
        job = self.context.journal.job(self.job.id) or self.job
        if job.result is not None:
            publisher.withdraw(publisher.outbox / job.result, job.id, job.result_sha256)


Stuck = InputStuck | PlaceRefused | FolderNotWritable
"""Only one input can't leave the inbox; it is tried again now and then."""


@dataclass(frozen=True, slots=True)
class ReleaseRequest(JobRequest):
    """Delete the files of a job that has ended, and let its input leave the inbox.

    Attributes:
        again: As in `InputCleanup.release_input`.
    """

    part: ClassVar[str] = "cleanup"

    again: bool = False

    def run(self, beat: Beat) -> None:
        """Do it.

        Raises:
            Stuck: only this input can't leave.
            ResourceUnavailable: its new place is full, read-only or gone.
        """
        self.context.files.drop(self.job.id)
        self.context.cleanup.release_input(self.job, again=self.again)


@dataclass(frozen=True, slots=True)
class TidyRequest:
    """Let all inputs leave the inbox whose jobs have ended, and forget what ended long ago."""

    part: ClassVar[str] = "cleanup"

    context: IoContext

    @property
    def log_context(self) -> dict[str, str]:
        """Nothing: it is about many jobs."""
        return {}

    def run(self, beat: Beat) -> tuple[int, list[tuple[Job, Stuck]]]:
        """Do it.

        Returns:
            How many jobs were forgotten, and the inputs that can't leave.

        Raises:
            ResourceUnavailable: the journal, the inbox or a place for inputs can't be used.
        """
        context = self.context
        stuck: list[tuple[Job, Stuck]] = []
        for job in context.journal.finished_in_inbox():
            if context.is_stopping.is_set():
                return 0, stuck
            beat(0.0)
            try:
                context.cleanup.release_input(job, again=True)
            except (InputStuck, PlaceRefused, FolderNotWritable) as error:
                stuck.append((job, error))
        before = context.now() - context.history.seconds
        return context.journal.prune(before=before, keep=context.history.jobs), stuck


@dataclass(frozen=True, slots=True)
class GalleryRequest:
    """Add to the gallery what has ended."""

    part: ClassVar[str] = "gallery"

    context: IoContext

    @property
    def log_context(self) -> dict[str, str]:
        """Nothing: it is about many jobs."""
        return {}

    def run(self, beat: Beat) -> bool:
        """Do it for a while; return whether there may be more.

        Raises:
            ResourceUnavailable: the journal can't be used.
        """
        updater = self.context.gallery_updater
        return updater is not None and updater.update(beat)
