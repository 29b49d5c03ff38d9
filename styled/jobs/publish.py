"""Encodes a painting and publishes it: `encode` is a pure function, `publish` writes files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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
from styled.jobs.prepare import DecodedFile, Prepared
from styled.jobs.publication import Publication, Published
from styled.jobs.sidecars import sidecar_of_result
from styled.sidecar import ResultInfo, TimingInfo

if TYPE_CHECKING:
    from styled.jobs.io_context import IoContext

log = structlog.get_logger()

_SUFFIXES = {
    "jpeg": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "tiff": {".tif", ".tiff"},
    "bmp": {".bmp", ".dib"},
    "heic": {".heic", ".heif", ".hif"},
    "jxl": {".jxl"},
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded result that is ready to be published.

    Attributes:
        image: The image in the file: 1x3xHxW, sRGB in [0, 1]. A tensor on the meta device, which
            has no data, if it was encoded on another machine.
        content: The photo, likewise: 1x3xHxW, or 1x4xHxW with opacity.
        size: The size of the image in the file.
        data: The bytes of the file.
        sha256: Of `data`, in hexadecimal.
        format: The name of the format, such as "jpeg".
        bits: Bits per channel: 8 or 16.
        color: Colour space that the file declares; None: it declares none.
        painted_size: Size at which it was painted, before details were added and it was resized.
        detail_steps: Optimisation steps at the photo's own size.
        degraded: What the file's format can't hold.
        thumbs: Encoded thumbnails of image and photo for the gallery; None: not made yet.
    """

    image: Tensor
    content: Tensor
    size: PixelSize
    data: bytes
    sha256: str
    format: str
    bits: int
    color: str | None
    painted_size: PixelSize
    detail_steps: int
    degraded: tuple[Degradation, ...]
    thumbs: tuple[bytes, bytes] | None = None

    def result_info(self, path: str, frames: str | None = None) -> ResultInfo:
        """Return the sidecar's entry for this file; `path` and `frames` are its published paths."""
        width, height = self.size
        is_painted_at_this_size = self.painted_size == self.size
        return ResultInfo(
            path=path,
            sha256=self.sha256,
            width=width,
            height=height,
            format=self.format,
            bits=self.bits,
            color=self.color,
            painted_width=None if is_painted_at_this_size else self.painted_size.width,
            painted_height=None if is_painted_at_this_size else self.painted_size.height,
            detail_steps=self.detail_steps,
            frames=frames,
        )


def encode(prepared: Prepared, painted: Painted, format: str, output: OutputConfig) -> Encoded:
    """Resize a painting to the result's size and encode it. A pure function, as `prepare` is.

    Raises:
        ConfigError: the image is larger than the format can hold.
        MemoryShortage: there is not enough memory now.
    """
    with photos.memory_shortage_at("encode the result"):
        image = painted.image
        height, width = image.shape[-2:]
        # Without detail steps, the image's own size is the painted size: a memory shortage may
        # have made it smaller.
        painted_size = prepared.painted_size if painted.detail_steps else None
        if prepared.result_size is not None:
            image = resize(image, *prepared.result_size)
        content = prepared.content
        if prepared.blend is not None:
            image, content = prepared.blend.over(image), prepared.blend.photo
        if output.grayscale == "keep" and prepared.input_file.photo.is_gray:
            image = photos.to_grayscale(image)
        options = photos.ExportOptions(
            output.quality, output.metadata, output.color, output.grayscale, output.bits
        )
        exported = photos.export_image(image, prepared.input_file.photo, format, options)
        return Encoded(
            image,
            content,
            PixelSize(image.shape[-1], image.shape[-2]),
            exported.data,
            hashlib.sha256(exported.data).hexdigest(),
            format,
            exported.bits,
            exported.icc,
            painted_size or PixelSize(width, height),
            painted.detail_steps,
            exported.degraded,
        )


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
        waited=max(0.0, (job.started_at or now) - job.submitted_at),
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
