"""The request that prepares a claimed job for an engine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from styled.config import OutputConfig, Style
from styled.degradation import Degradation
from styled.errors import (
    InboxUnavailable,
    InputIncomplete,
    MemoryShortage,
    ResourceUnavailable,
    StyledError,
    StyleUnavailable,
    TooManyPixels,
)
from styled.files import COMPANION_SUFFIXES, FileStamps, input_identity, lies_in, stamps_of
from styled.job_io.applied_settings import AppliedSettings, apply_photo_settings, mask_info
from styled.job_io.disk_check import require_usable_disks
from styled.job_io.input_cleanup import is_unchanged
from styled.job_io.memory_budget import (
    PUBLISHING_BYTES_PER_PIXEL,
    READING_BYTES_PER_PIXEL,
    bytes_beside_painting,
)
from styled.job_io.protocols import SendHeartbeat
from styled.job_io.requests import JobRequest
from styled.journal.job import BLOCKED
from styled.sidecar import FileInfo, SettingsInfo

if TYPE_CHECKING:  # it imports torch, which the scheduler's modules must not
    from styled.codec.prepare import Prepared

PREPARE_PART = "prepare"


@dataclass(frozen=True, slots=True)
class Ready:
    """The photo is prepared.

    Attributes:
        degraded: Degradations of the photo and of the style images.
        publishes_alone: Whether the result is too large to be published while another job is
            painted.
        stamps: Of the photo, its settings and the style images, taken before they were read.
        output: How the result is saved.
        settings: The settings beside the photo.
        mask: Of the photo.
    """

    prepared: Prepared
    degraded: tuple[Degradation, ...]
    publishes_alone: bool
    stamps: FileStamps
    output: OutputConfig
    settings: SettingsInfo | None = None
    mask: FileInfo | None = None


@dataclass(frozen=True, slots=True)
class AlreadyPublished:
    """The result is in the outbox already: a process died just after publishing it."""


@dataclass(frozen=True, slots=True)
class NotPublished:
    """The result is not in the outbox; the request had no style, so nothing was prepared."""


@dataclass(frozen=True, slots=True)
class InputChanged:
    """The input was removed, replaced or changed; `reason` says so in a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class TooLargeToShare:
    """The photo is too large to be prepared while other jobs are active."""


PrepareResult = Ready | AlreadyPublished | NotPublished | InputChanged | TooLargeToShare


@dataclass(frozen=True, slots=True)
class PrepareRequest(JobRequest):
    """Check for a published result; if there is none, read and decode the photo and its style.

    Attributes:
        style: None: only check for a published result.
        is_concurrent: Whether other jobs are active at the same time. Then the photo may use only
            a part of the free memory.
        style_names: All styles that the settings beside the photo may name.
    """

    part: ClassVar[str] = PREPARE_PART

    style: Style | None
    is_concurrent: bool
    style_names: frozenset[str] = frozenset()

    def run(self, heartbeat: SendHeartbeat) -> PrepareResult:
        """Execute the request.

        Raises:
            DiskNearlyFull: there is too little free space.
            DiskReadOnly: a disk is mounted read-only.
            StyledError: as `read_source_files`, `prepare` and `require_publishable`.
        """
        job, context = self.job, self.context
        if job.result is not None and context.publisher.is_published(
            context.publisher.outbox / job.result, job.id
        ):
            return AlreadyPublished()
        if self.style is None:
            return NotPublished()
        require_usable_disks(context.config)
        source = context.config.inbox / job.input
        try:
            return self._prepare(self.style)
        except InputIncomplete:
            if input_identity(source) == (job.size, job.mtime_ns):
                raise
            return InputChanged("the input was changed while it was read")
        except FileNotFoundError:
            try:
                context.mounts.require(context.config.inbox)
            except ResourceUnavailable as error:
                raise InboxUnavailable(error.message, *error.remedies) from error
            if is_unchanged(context.config.inbox, job, None):
                raise InboxUnavailable(
                    f"{source} was moved away and back while it was read", "it is read again soon"
                ) from None
            return InputChanged("the input was removed before its turn")
        except StyledError as error:
            if (
                self.is_concurrent
                and context.codec.uses_own_memory
                and _is_for_lack_of_memory(error)
            ):
                return TooLargeToShare()
            raise

    def _prepare(self, style: Style) -> PrepareResult:
        from styled.codec.source_files import read_source_files, require_style
        from styled.job_io.publish import require_publishable
        from styled.job_io.sidecars import degradations_of_inputs

        job, context, config = self.job, self.context, self.context.config
        source = config.inbox / job.input
        if not lies_in(config.inbox, job.input):
            raise FileNotFoundError(job.input)
        if job.failure == BLOCKED:
            # It waits for its style or its folder, and many other jobs may too: check these first,
            # so that not all photos are read at each retry.
            require_style(style)
            publisher = context.publisher
            publisher.require_writable(publisher.outbox, f"{job.style}/{job.destination}")
        current = input_identity(source)
        if current is None:
            raise FileNotFoundError(job.input)
        if current != (job.size, job.mtime_ns):
            return InputChanged("the input was replaced by another file before its turn")
        companions = [source.with_name(source.name + suffix) for suffix in COMPANION_SUFFIXES]
        stamps = stamps_of([source, *companions])
        has_companions = any(stamp for _, stamp in stamps[1:])
        applied = (
            apply_photo_settings(source, style, self.style_names)
            if has_companions
            else AppliedSettings(style)
        )
        style = applied.style
        stamps += stamps_of([*style.files, *([applied.mask] if applied.mask else [])])
        output = config.output_of(style)
        limit = config.intake.max_pixels
        codec = context.codec
        usable = bytes_beside_painting() if codec.uses_own_memory else sys.maxsize
        if self.is_concurrent:
            limit = min(limit, usable // READING_BYTES_PER_PIXEL)
        files = read_source_files(source, style, applied.mask)
        prepared = codec.prepare(
            files, style.recipe, max_pixels=limit,
            at_own_size=output.size == "input",
            paint_damaged=config.intake.damaged == "paint",
        )  # fmt: skip
        require_publishable(job, prepared, output, context)
        is_large = prepared.pixels > usable // PUBLISHING_BYTES_PER_PIXEL
        return Ready(
            prepared, degradations_of_inputs(prepared), is_large, stamps, output, applied.info,
            mask_info(applied.mask, files.mask),
        )  # fmt: skip


def _is_for_lack_of_memory(error: StyledError) -> bool:
    if isinstance(error, StyleUnavailable):
        return isinstance(error.__cause__, TooManyPixels)
    return isinstance(error, TooManyPixels | MemoryShortage)
