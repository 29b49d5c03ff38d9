"""Publishes a painting: its file, then its sidecar."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import structlog

from styled import photos
from styled.codec.encode import Encoded
from styled.codec.prepare import DecodedFile, Prepared
from styled.config import OutputConfig
from styled.errors import ResourceUnavailable
from styled.job_io.input_cleanup import is_unchanged
from styled.job_io.publication import Publication, Published
from styled.job_io.sidecars import sidecar_of_result
from styled.journal.job import Job
from styled.sidecar import TimingInfo

if TYPE_CHECKING:
    from styled.job_io.io_context import IoContext

log = structlog.get_logger()

_SUFFIXES = {
    "jpeg": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "tiff": {".tif", ".tiff"},
    "bmp": {".bmp", ".dib"},
    "heic": {".heic", ".heif", ".hif"},
    "jxl": {".jxl"},
}


def publish(publication: Publication, context: IoContext) -> Published:
    """Encode a painting and publish the result, then its sidecar.

    The result's path is written to the journal before any file appears in the outbox.

    Raises:
        ResourceUnavailable: the outbox or the journal can't be written.
        MemoryShortage: there is too little memory to encode the result.
        ConfigError: the output format can't hold an image of this size.
        NodeLost, EngineDied: it is encoded on a cluster, and that has failed.
        JournalDamaged: the journal is damaged.
    """
    started = context.clock()
    job, prepared, painted = publication.job, publication.prepared, publication.painted
    output = publication.output
    name, format = result_name(job.destination, output.format, prepared.input_file)
    encoded = context.codec.encode(prepared, painted, format, output)
    for degradation in encoded.degraded:
        log.warning("job.degraded", kind=degradation.kind, reason=degradation.message)
    degraded = tuple(dict.fromkeys((*publication.degraded, *encoded.degraded)))

    publisher = context.publisher
    path = _reserved_path(job, f"{job.style}/{name}", context)
    context.journal.reserve_result(
        job, _relative(path, context), encoded.sha256, prepared.input_file.sha256, degraded
    )
    frames = context.files.frames(job.id)
    folder = publisher.publish_frames(path, job.id, frames) if frames else None
    publisher.publish_result(path, encoded.data, earlier_sha256=job.result_sha256)
    _keep_thumbnails(publication, encoded, context)

    now = context.now()
    result_info = encoded.result_info(
        _relative(path, context), None if folder is None else _relative(folder, context)
    )
    timing = TimingInfo(
        waited=max(0.0, (job.started_at or now) - job.submitted_at) + publication.ready_seconds,
        prepare=publication.prepare_seconds,
        optimise=publication.optimise_seconds,
        publish=context.clock() - started,
    )
    changed = _has_changed(job, prepared.input_file.sha256, context)
    sidecar = sidecar_of_result(
        job, prepared, painted, publication.engine_info, result_info, timing, degraded=degraded,
        changed=changed, now=now, engine_name=publication.engine_name,
        settings=publication.settings, mask=publication.mask,
    )  # fmt: skip
    publisher.publish_sidecar(path, sidecar)
    return Published(result_info, timing, changed, degraded)


def require_publishable(
    job: Job, prepared: Prepared, output: OutputConfig, context: IoContext
) -> None:
    """Check, before painting, that a result of this size can be published.

    Args:
        job: The job.
        prepared: Its photo.
        output: How the result is going to be saved.
        context: Provides the publisher.

    Raises:
        ConfigError: the output format can't hold an image of this size.
        FolderNotWritable: the result's folder may not be written.
    """
    name, format = result_name(job.destination, output.format, prepared.input_file)
    height, width = prepared.content.shape[-2:]
    photos.require_encodable(format, *(prepared.result_size or (width, height)))
    context.publisher.require_writable(context.publisher.outbox, f"{job.style}/{name}")


def result_name(destination: str, configured_format: str, read: DecodedFile) -> tuple[str, str]:
    """Return the result's path relative to the style's folder, and its format.

    The suffix is kept if it is one of the format's usual suffixes, and replaced otherwise.
    """
    result_format, suffix = photos.output_format(configured_format, read.photo.format)
    path = PurePosixPath(destination)
    stem, current_suffix = os.path.splitext(path.name)
    if current_suffix.lower() not in _SUFFIXES.get(result_format, {suffix}):
        path = path.with_name(stem + suffix)
    return str(path), result_format


def _reserved_path(job: Job, relative: str, context: IoContext) -> Path:
    """Return the result's path: that of an earlier attempt unless another file has taken it."""
    publisher = context.publisher
    if job.result is not None:
        path = publisher.outbox / job.result
        is_same_format = path.suffix == Path(relative).suffix
        if is_same_format and publisher.is_own_reservation(path, job.id, job.result_sha256):
            return path
        publisher.unpublish(path, job.id, job.result_sha256)
    return publisher.free_path(publisher.outbox, relative, job_id=job.id, sidecar=True)


def _relative(path: Path, context: IoContext) -> str:
    return str(path.relative_to(context.publisher.outbox))


def _keep_thumbnails(publication: Publication, encoded: Encoded, context: IoContext) -> None:
    """Write thumbnails for the gallery while the large images are in memory."""
    if context.gallery is None:
        return
    # If this fails, for instance for lack of memory, the gallery makes them from the files later.
    # A missing thumbnail must not stop the publication halfway.
    try:
        job_id = publication.job.id
        if encoded.thumbs is not None:
            context.gallery.store_thumbs(job_id, *encoded.thumbs)
        elif not encoded.image.is_meta:
            context.gallery.write_thumbs(job_id, encoded.content, encoded.image)
    except (ResourceUnavailable, RuntimeError, MemoryError, ValueError) as error:
        log.warning("thumbnail.failed", reason=str(error))


def _has_changed(job: Job, input_sha256: str, context: IoContext) -> bool:
    try:
        if is_unchanged(context.config.inbox, job, input_sha256):
            return False
        context.mounts.require(context.config.inbox)
    except ResourceUnavailable:
        return False  # this photo or the whole inbox can't be read: unknown whether it has changed
    return True
