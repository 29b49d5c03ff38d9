"""From a painting to a published result: `encode` is a pure function, `publish` writes files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from torch import Tensor

from styled import photos
from styled.config import OutputConfig
from styled.degradation import Degradation
from styled.engine.scales import resize
from styled.engine_api import Painted, PixelSize
from styled.errors import ResourceUnavailable
from styled.jobs.input_cleanup import is_unchanged
from styled.jobs.job import Job
from styled.jobs.prepare import Prepared, result_name
from styled.jobs.publication import Publication, Published
from styled.jobs.sidecars import sidecar_of_result
from styled.sidecar import ResultFacts, TimingFacts

if TYPE_CHECKING:
    from styled.jobs.io_context import IoContext

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file that is ready to be published.

    Attributes:
        image: What is in it: 1x3xHxW, sRGB in [0, 1].
        data: Its bytes.
        degraded: What the photo had and the file has not.
    """

    image: Tensor
    data: bytes
    sha256: str
    format: str
    bits: int
    color: str | None
    painted_size: PixelSize
    detail_steps: int
    degraded: tuple[Degradation, ...]

    def facts(self, path: str, frames: str | None = None) -> ResultFacts:
        """Describe it, once it is known where it lies."""
        height, width = self.image.shape[-2:]
        was_painted_so = self.painted_size == (width, height)
        return ResultFacts(
            path=path,
            sha256=self.sha256,
            width=width,
            height=height,
            format=self.format,
            bits=self.bits,
            color=self.color,
            painted_width=None if was_painted_so else self.painted_size.width,
            painted_height=None if was_painted_so else self.painted_size.height,
            detail_steps=self.detail_steps,
            frames=frames,
        )


def encode(prepared: Prepared, painted: Painted, format: str, output: OutputConfig) -> Encoded:
    """Bring a painting to its size and into a file. A pure function, as `prepare` is.

    Raises:
        ConfigError: it is larger than the format can hold.
        MemoryShortage: there is not enough memory for that now.
    """
    with photos.memory_shortage_at("bring the result into its file"):
        image = painted.image
        height, width = image.shape[-2:]
        # It may have become smaller for lack of memory before it came to its details.
        painted_size = prepared.painted_size if painted.detail_steps else None
        if prepared.result_size is not None:
            image = resize(image, *prepared.result_size)
        if output.grayscale == "keep" and prepared.read.photo.is_gray:
            image = photos.in_gray(image)
        how = photos.Finish(
            output.quality, output.metadata, output.color, output.grayscale, output.bits
        )
        done = photos.finish(image, prepared.read.photo, format, how)
        return Encoded(
            image,
            done.data,
            hashlib.sha256(done.data).hexdigest(),
            format,
            done.bits,
            done.icc,
            painted_size or PixelSize(width, height),
            painted.detail_steps,
            done.degraded,
        )


def publish(publication: Publication, context: IoContext) -> Published:
    """Encode a painting, publish the result, and then its sidecar.

    Its name is in the journal before anything of it is in the outbox.

    Raises:
        ResourceUnavailable: the outbox is full, read-only or gone.
        ConfigError: the output format can't hold an image of this size.
    """
    started = context.clock()
    job, prepared, painted = publication.job, publication.prepared, publication.painted
    name, format = result_name(job.destination, context.config.output.format, prepared.read)
    encoded = encode(prepared, painted, format, context.config.output)
    for lost in encoded.degraded:
        log.warning("job.degraded", kind=lost.kind, reason=lost.message)
    degraded = tuple(dict.fromkeys((*publication.degraded, *encoded.degraded)))

    publisher = context.publisher
    path = _reserved_path(job, f"{job.style}/{name}", context)
    context.journal.reserve_result(
        job, _relative(path, context), encoded.sha256, prepared.read.sha256, degraded
    )
    frames = context.files.frames(job.id)
    folder = publisher.publish_frames(path, job.id, frames) if frames else None
    publisher.publish_result(path, encoded.data)
    _keep_thumbnails(publication, encoded, context)

    now = context.now()
    facts = encoded.facts(
        _relative(path, context), None if folder is None else _relative(folder, context)
    )
    timing = TimingFacts(
        waited=max(0.0, (job.started_at or now) - job.submitted_at),
        prepare=publication.prepare_seconds,
        optimise=publication.optimise_seconds,
        publish=context.clock() - started,
    )
    changed = _has_changed(job, prepared.read.sha256, context)
    sidecar = sidecar_of_result(
        job, prepared, painted, publication.engine, facts, timing, degraded=degraded,
        changed=changed, now=now,
    )  # fmt: skip
    publisher.publish_sidecar(path, sidecar)
    return Published(facts, timing, changed, degraded)


def require_room(job: Job, prepared: Prepared, context: IoContext) -> None:
    """Do nothing if a result of this size could be published: better asked before painting.

    Raises:
        ConfigError: the output format can't hold it.
        FolderNotWritable: its folder may not be written.
    """
    name, format = result_name(job.destination, context.config.output.format, prepared.read)
    height, width = prepared.content.shape[-2:]
    photos.require_room(format, *(prepared.result_size or (width, height)))
    context.publisher.require_writable(context.publisher.outbox, f"{job.style}/{name}")


def _reserved_path(job: Job, relative: str, context: IoContext) -> Path:
    """Return the result's path: the one of an earlier attempt, unless it has been taken."""
    publisher = context.publisher
    if job.result is not None:
        path = publisher.outbox / job.result
        if publisher.may_replace(path, job.id, job.result_sha256):
            return path
    return publisher.place_for(publisher.outbox, relative, sidecar=True)


def _relative(path: Path, context: IoContext) -> str:
    return str(path.relative_to(context.publisher.outbox))


def _keep_thumbnails(publication: Publication, encoded: Encoded, context: IoContext) -> None:
    """Keep small images for the gallery while the large ones are in memory."""
    if context.gallery is None:
        return
    # They can be made of the files as well, and will be where this fails: for lack of memory,
    # say. Nothing that is half published may stay so for want of a thumbnail.
    try:
        context.gallery.keep_pictures(
            publication.job.id, publication.prepared.content, encoded.image
        )
    except (ResourceUnavailable, RuntimeError, MemoryError, ValueError) as error:
        log.warning("thumbnail.failed", reason=str(error))


def _has_changed(job: Job, input_sha256: str, context: IoContext) -> bool:
    if is_unchanged(context.config.inbox, job, input_sha256):
        return False
    try:
        context.mounts.require(context.config.inbox)
    except ResourceUnavailable:
        return False  # the whole inbox is missing, which says nothing about this photo
    return True
