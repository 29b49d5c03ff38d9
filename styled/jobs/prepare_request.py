"""The request that brings a claimed job to the point where an engine can take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from styled.config import Style
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
from styled.files import identity, lies_in
from styled.jobs.job import WAITING
from styled.jobs.prefetch import (
    PUBLISHING_BYTES_PER_PIXEL,
    READING_BYTES_PER_PIXEL,
    Stamps,
    pixels_beside,
    stamps_of,
)
from styled.jobs.protocols import Beat
from styled.jobs.requests import JobRequest

if TYPE_CHECKING:  # it imports torch, and what the scheduler's thread imports must not
    from styled.jobs.prepare import Prepared

PREPARE_PART = "prepare"


@dataclass(frozen=True, slots=True)
class Ready:
    """A photo is prepared.

    Attributes:
        degraded: What of the photo and of the style's images can't be used as it is.
        publishes_alone: Its result is too large to be published while another is painted.
        stamps: Of the photo and the style's images, from before they were read.
    """

    prepared: Prepared
    degraded: tuple[Degradation, ...]
    publishes_alone: bool
    stamps: Stamps


@dataclass(frozen=True, slots=True)
class AlreadyPublished:
    """The job's result is in the outbox: an earlier process died just after publishing it."""


@dataclass(frozen=True, slots=True)
class NotPublished:
    """It is not, and nothing else was asked for."""


@dataclass(frozen=True, slots=True)
class InputGone:
    """The input is not what was dropped any more; `reason` says it in a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class TooLargeBeside:
    """The photo takes more memory than there is while others are worked on."""


PrepareResult = Ready | AlreadyPublished | NotPublished | InputGone | TooLargeBeside


@dataclass(frozen=True, slots=True)
class PrepareRequest(JobRequest):
    """Look for a finished result; then read the photo and its style, and decode them.

    Attributes:
        style: None: only look for a result.
        is_beside: Whether others are worked on meanwhile: then it may take a part of the free
            memory only.
    """

    part: ClassVar[str] = PREPARE_PART

    style: Style | None
    is_beside: bool

    def run(self, beat: Beat) -> PrepareResult:
        """Do it.

        Raises:
            StyledError: as `read_inputs`, `prepare` and `require_room`.
        """
        job, context = self.job, self.context
        if job.result is not None and context.publisher.is_published(
            context.publisher.outbox / job.result, job.id
        ):
            return AlreadyPublished()
        if self.style is None:
            return NotPublished()
        source = context.config.inbox / job.input
        try:
            return self._prepare(self.style)
        except InputIncomplete:
            if identity(source) == (job.size, job.mtime_ns):
                raise
            return InputGone("the input was changed while it was read")
        except FileNotFoundError:
            try:
                context.mounts.require(context.config.inbox)
            except ResourceUnavailable as error:
                raise InboxUnavailable(error.message, *error.remedies) from error
            return InputGone("the input was removed before its turn")
        except StyledError as error:
            if self.is_beside and _is_for_lack_of_memory(error):
                return TooLargeBeside()
            raise

    def _prepare(self, style: Style) -> PrepareResult:
        from styled.jobs.prepare import prepare, read_inputs, require_style
        from styled.jobs.publish import require_room
        from styled.jobs.sidecars import degradations_of_inputs

        job, context, config = self.job, self.context, self.context.config
        source = config.inbox / job.input
        if not lies_in(config.inbox, job.input):
            raise FileNotFoundError(job.input)
        if job.failure == WAITING:
            # For its style or its folder, and many may: they are not all read each time.
            require_style(style)
            publisher = context.publisher
            publisher.require_writable(publisher.outbox, f"{job.style}/{job.destination}")
        found = identity(source)
        if found is None:
            raise FileNotFoundError(job.input)
        if found != (job.size, job.mtime_ns):
            return InputGone("the input was replaced by another file before its turn")
        stamps = stamps_of([source, *(image.path for image in style.images)])
        limit = config.intake.max_pixels
        if self.is_beside:
            limit = min(limit, pixels_beside(READING_BYTES_PER_PIXEL))
        prepared = prepare(
            read_inputs(source, style), style.recipe, max_pixels=limit,
            at_own_size=config.output.size == "input",
        )  # fmt: skip
        require_room(job, prepared, context)
        is_large = prepared.pixels > pixels_beside(PUBLISHING_BYTES_PER_PIXEL)
        return Ready(prepared, degradations_of_inputs(prepared), is_large, stamps)


def _is_for_lack_of_memory(error: StyledError) -> bool:
    if isinstance(error, StyleUnavailable):
        return isinstance(error.__cause__, TooManyPixels)
    return isinstance(error, TooManyPixels | MemoryShortage)
