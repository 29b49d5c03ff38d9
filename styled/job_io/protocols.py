"""The interfaces that the job queue needs from other parts of the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from styled.sidecar import Sidecar

if TYPE_CHECKING:
    from torch import Tensor

    from styled.codec.encode import Encoded
    from styled.codec.prepare import Prepared
    from styled.codec.source_files import SourceFiles
    from styled.config import OutputConfig
    from styled.engine_api import Painted
    from styled.recipes import Recipe

SendHeartbeat = Callable[[float], None]
"""Sends a heartbeat; called with the maximum number of seconds until the next one."""


class HeartbeatsProtocol(Protocol):
    """Records heartbeats; see `styled.ops.heartbeats.Heartbeats`."""

    def beat(self, part: str, idle_for: float = 0.0) -> None:
        """Record a heartbeat of `part`; the next is due in `idle_for` seconds."""


class PublisherProtocol(Protocol):
    """Publishes files; see `styled.delivery.publisher.Publisher`."""

    @property
    def outbox(self) -> Path:
        """Folder of results."""

    @property
    def rejected(self) -> Path:
        """Folder of rejected inputs."""

    @property
    def archive(self) -> Path:
        """Folder of the originals of finished jobs."""

    def free_path(self, root: Path, relative: str, *, job_id: str, sidecar: bool) -> Path:
        """Return a free path below `root` and reserve it."""

    def path_for_original(
        self, root: Path, relative: str, source: Path, reserved: Path | None, job_id: str
    ) -> Path:
        """Return the path that an original is moved to."""

    def require_writable(self, root: Path, relative: str) -> None:
        """Raise FolderNotWritable if `relative` can't be written below `root`."""

    def publish_result(self, path: Path, data: bytes, *, earlier_sha256: str | None = None) -> None:
        """Write a result."""

    def publish_sidecar(self, path: Path, sidecar: Sidecar) -> None:
        """Write a sidecar, which marks the result as published."""

    def unpublish(self, path: Path, job_id: str, sha256: str | None) -> None:
        """Delete a result of this job that has no sidecar yet."""

    def publish_frames(self, result: Path, job_id: str, frames: Sequence[Path]) -> Path:
        """Copy a job's frames to a folder beside its result; return the folder."""

    def is_published(self, path: Path, job_id: str) -> bool:
        """Return whether `path` exists with a sidecar of this job."""

    def has_sidecar(self, path: Path, job_id: str) -> bool:
        """Return whether the sidecar beside `path` is of this job."""

    def is_own_reservation(self, path: Path, job_id: str, sha256: str | None) -> bool:
        """Reserve a path again if it is still free or this job's own; return whether it is."""

    def move_original(
        self, source: Path, destinations: list[Path], *, same_as: tuple[int, int], keep: bool
    ) -> bool:
        """Copy or move an input to its destinations; it leaves the inbox unless `keep` is set."""

    def move_companions(self, source: Path, destinations: Sequence[Path], *, keep: bool) -> None:
        """Move or copy the settings and mask of an input to where it is."""

    def delete_companions(self, source: Path, *, same_as: tuple[int, int]) -> None:
        """Delete the settings and mask of an input that is about to be deleted."""


class PhotoCodec(Protocol):
    """Where photos are decoded and results encoded: here, or on the machines of a cluster."""

    @property
    def uses_own_memory(self) -> bool:
        """Whether that takes memory of this process, so that large photos must be alone."""

    def prepare(
        self, files: SourceFiles, recipe: Recipe, *, max_pixels: int, at_own_size: bool,
        paint_damaged: bool,
    ) -> Prepared:  # fmt: skip
        """Decode a photo and its style; see `styled.codec.prepare.prepare`.

        Raises:
            StyledError: as `prepare`; NodeLost or EngineDied if it was done elsewhere.
        """

    def encode(
        self, prepared: Prepared, painted: Painted, format: str, output: OutputConfig
    ) -> Encoded:
        """Encode a painting; see `styled.codec.encode.encode`.

        Raises:
            StyledError: as `encode`; NodeLost or EngineDied if it was done elsewhere.
        """


class GalleryProtocol(Protocol):
    """The HTML gallery of results; see `styled.delivery.gallery.Gallery`."""

    def write_thumbs(self, job_id: str, before: Tensor, after: Tensor) -> None:
        """Write thumbnails of a photo and its painting."""

    def store_thumbs(self, job_id: str, before: bytes, after: bytes) -> None:
        """Write thumbnails that are encoded already."""

    def add(self, entries: Sequence[tuple[Path, Path | None]]) -> None:
        """Add results and rejected inputs that have a sidecar, with their originals."""
