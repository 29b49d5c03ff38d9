"""What the queue needs from its siblings, delivery and ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from styled.sidecar import Sidecar

if TYPE_CHECKING:
    from torch import Tensor

Beat = Callable[[float], None]
"""Called as a sign of life, with how many seconds may pass until the next."""


class Heartbeats(Protocol):
    """Remembers signs of life; see `styled.ops.pulse.Pulse`."""

    def beat(self, part: str, rest_seconds: float = 0.0) -> None:
        """Give a sign of life of `part`, which may rest for so long."""


class Publisher(Protocol):
    """Publishes files; see `styled.delivery.publisher.Publisher`."""

    @property
    def outbox(self) -> Path:
        """Where results go."""

    @property
    def rejected(self) -> Path:
        """Where inputs go that can't be done."""

    @property
    def archive(self) -> Path:
        """Where the originals of finished jobs go."""

    def place_for(self, root: Path, relative: str, *, sidecar: bool) -> Path:
        """Return a free path below `root`."""

    def place_for_original(
        self, root: Path, relative: str, source: Path, reserved: Path | None
    ) -> Path:
        """Return where an original goes."""

    def require_writable(self, root: Path, relative: str) -> None:
        """Raise FolderNotWritable where `relative` can't be written below `root`."""

    def publish_result(self, path: Path, data: bytes) -> None:
        """Write a result."""

    def publish_sidecar(self, path: Path, sidecar: Sidecar) -> None:
        """Write a sidecar, which makes the result count."""

    def withdraw(self, path: Path, job_id: str, sha256: str | None) -> None:
        """Take back a result of this job that has no sidecar yet."""

    def publish_frames(self, result: Path, job_id: str, frames: Sequence[Path]) -> Path:
        """Copy a job's frames beside its result; return their folder."""

    def is_published(self, path: Path, job_id: str) -> bool:
        """Tell whether `path` is complete and made by this job."""

    def has_sidecar(self, path: Path, job_id: str) -> bool:
        """Tell whether this job's sidecar lies beside `path`."""

    def may_replace(self, path: Path, job_id: str, sha256: str | None) -> bool:
        """Tell whether a reserved name is still the job's own."""

    def take_original(
        self, source: Path, destinations: list[Path], *, same_as: tuple[int, int], keep: bool
    ) -> bool:
        """Put an input where it belongs now, and out of the inbox unless it is kept."""


class Gallery(Protocol):
    """Shows results to people; see `styled.delivery.gallery.Gallery`."""

    def keep_pictures(self, job_id: str, before: Tensor, after: Tensor) -> None:
        """Keep small pictures of a photo and its painting."""

    def add(self, pieces: Sequence[tuple[Path, Path | None]]) -> None:
        """Show what has a sidecar: results and rejected inputs, with their originals."""
