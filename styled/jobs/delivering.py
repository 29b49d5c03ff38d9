"""From a painted picture to a published result and its sidecar."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from styled import photos
from styled.config import Config
from styled.degradation import Degradation
from styled.errors import ResourceUnavailable
from styled.jobs.account import Outcome, sidecar_of_result
from styled.jobs.degradations import JobDegradations
from styled.jobs.frames import FrameStore
from styled.jobs.job import Job
from styled.jobs.journal import Journal
from styled.jobs.preparation import Prepared, result_name
from styled.jobs.protocols import Beat, Delivery, Engine, Gallery
from styled.jobs.results import Result, finished
from styled.jobs.retirement import is_unchanged
from styled.sidecar import ResultFacts, TimingFacts

log = structlog.get_logger()

PATIENCE_PIXELS_PER_SECOND = 100_000
"""How fast a picture is brought into a file, at the least. HEIC makes 280,000 on a slow core."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A result that is published.

    Attributes:
        changed: Whether the photo in the inbox was changed or removed meanwhile.
        degraded: In which ways the result is less than what was asked for, all in all.
    """

    result: ResultFacts
    timing: TimingFacts
    changed: bool
    degraded: tuple[Degradation, ...]


class Deliverer:
    """Publishes what has been painted, under a name that the journal knows beforehand."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        engine: Engine,
        delivery: Delivery,
        gallery: Gallery | None,
        frames: FrameStore,
        require_inbox: Callable[[], None],
        beat: Beat,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Publish by `delivery`; `now` tells the time of day, `clock` measures."""
        self._config = config
        self._journal = journal
        self._engine = engine
        self._delivery = delivery
        self._gallery = gallery
        self._frames = frames
        self._require_inbox = require_inbox
        self._beat = beat
        self._now = now
        self._clock = clock

    def is_published(self, job: Job) -> bool:
        """Tell whether the job's result lies in the outbox, complete."""
        if job.result is None:
            return False
        return self._delivery.is_published(self._delivery.outbox / job.result, job.id)

    def withdraw(self, job: Job) -> None:
        """Take back what lies in the outbox of a job that will never be done.

        Raises:
            ResourceUnavailable: the outbox is read-only or gone.
        """
        reserved = self._journal.job(job.id) or job  # its place was perhaps chosen only now
        if reserved.result is not None:
            path = self._delivery.outbox / reserved.result
            self._delivery.withdraw(path, job.id, reserved.result_sha256)

    def require_room(self, job: Job, prepared: Prepared) -> None:
        """Do nothing if a result of this size fits into a file: better asked before painting.

        Raises:
            ConfigError: it does not.
            FolderNotWritable: its folder may not be written.
        """
        name, result_format = result_name(
            job.destination, self._config.output.format, prepared.read
        )
        height, width = prepared.content.shape[-2:]
        photos.require_room(result_format, *(prepared.result_size or (width, height)))
        self._delivery.require_writable(self._delivery.outbox, f"{job.style}/{name}")

    def require_folder(self, job: Job) -> None:
        """Do nothing if the folder that the job's result belongs in may be written.

        Raises:
            FolderNotWritable: it may not.
        """
        self._delivery.require_writable(self._delivery.outbox, f"{job.style}/{job.destination}")

    def deliver(
        self, job: Job, prepared: Prepared, outcome: Outcome, degradations: JobDegradations,
        prepare: float, optimise: float,
    ) -> Delivered:  # fmt: skip
        """Publish the result and then its sidecar; `prepare` and `optimise` took seconds.

        What the result's file has no room for is noted in `degradations`, before it is published.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
            ConfigError: the output format can't hold a picture of this size.
        """
        started = self._clock()
        height, width = prepared.content.shape[-2:]
        w, h = prepared.result_size or (width, height)
        self._beat(float(max(width * height, w * h) // PATIENCE_PIXELS_PER_SECOND))
        output = self._config.output
        name, result_format = result_name(job.destination, output.format, prepared.read)
        result = finished(prepared, outcome.stylized, result_format, output)
        degradations.note("result", result.degraded)
        outcome = replace(outcome, degraded=degradations.all())
        path = self._reserve(job, f"{job.style}/{name}", result.sha256, prepared.read.sha256)
        frames = self._publish_frames(job, path)
        self._delivery.publish_result(path, result.data)
        self._keep_pictures(job, prepared, result)

        now = self._now()
        publish = self._clock() - started
        facts = result.facts(str(path.relative_to(self._delivery.outbox)), frames)
        waited = max(0.0, (job.started_at or now) - job.submitted_at)
        timing = TimingFacts(waited=waited, prepare=prepare, optimise=optimise, publish=publish)
        changed = self._has_changed(job, prepared.read.sha256)
        sidecar = sidecar_of_result(
            job, prepared, outcome, self._engine.facts, facts, timing, changed=changed, now=now
        )
        self._delivery.publish_sidecar(path, sidecar)
        return Delivered(facts, timing, changed, outcome.degraded)

    def _publish_frames(self, job: Job, path: Path) -> str | None:
        frames = self._frames.kept(job)
        if not frames:
            return None
        folder = self._delivery.publish_frames(path, job.id, frames)
        return str(folder.relative_to(self._delivery.outbox))

    def _keep_pictures(self, job: Job, prepared: Prepared, result: Result) -> None:
        """Keep small pictures for the gallery while they are at hand."""
        if self._gallery is None:
            return
        # It can be made of the files as well, and will be where this fails: for lack of memory,
        # say. Nothing that is half published may stay so for want of a small picture.
        try:
            self._gallery.keep_pictures(job.id, prepared.content, result.image)
        except (ResourceUnavailable, RuntimeError, MemoryError, ValueError) as error:
            log.warning("thumbnail.failed", reason=str(error))

    def _has_changed(self, job: Job, input_sha256: str) -> bool:
        if is_unchanged(self._config.inbox, job, input_sha256):
            return False
        try:
            self._require_inbox()
        except ResourceUnavailable:
            return False  # the whole inbox is missing, which says nothing about this photo
        return True

    def _reserve(self, job: Job, relative: str, sha256: str, input_sha256: str) -> Path:
        """Return the result's path, written into the journal before anything else is."""
        outbox = self._delivery.outbox
        path = outbox / job.result if job.result is not None else None
        if path is None or not self._delivery.may_replace(path, job.id, job.result_sha256):
            path = self._delivery.place_for(outbox, relative, sidecar=True)
        self._journal.reserve_result(job, str(path.relative_to(outbox)), sha256, input_sha256)
        return path
