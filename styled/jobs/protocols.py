"""What the worker needs from others: the seams between jobs, engine and delivery.

Today one engine in this process stands behind `Engine`. A pool of GPU workers can take
its place without a change to the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import IO, Protocol

from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.local import EngineFacts
from styled.engine.progress import Progress, Stylized
from styled.recipes import Recipe
from styled.sidecar import Sidecar

Styles = Sequence[tuple[Tensor, float]]


Beat = Callable[[float], None]
"""Called as a sign of life, with how many seconds may pass until the next."""


class Engine(Protocol):
    """Paints one picture at a time."""

    @property
    def facts(self) -> EngineFacts:
        """What the engine is, for the sidecar."""

    def stylize(
        self,
        content: Tensor,
        styles: Styles,
        recipe: Recipe,
        resume: Checkpoint | None = None,
        painted_size: tuple[int, int] | None = None,
    ) -> Generator[Progress, None, Stylized]:
        """Paint, yielding after every step; closing the generator stops it."""

    def fingerprint(self, content: Tensor, styles: Styles, recipe: Recipe) -> str:
        """Return a digest of the work: another engine returns the same."""

    def dump_checkpoint(self, checkpoint: Checkpoint, fingerprint: str, stream: IO[bytes]) -> None:
        """Write a checkpoint, piece by piece."""

    def load_checkpoint(self, stream: IO[bytes], fingerprint: str) -> Checkpoint:
        """Read a checkpoint back; ValueError where it can't be trusted."""

    @property
    def layers_run(self) -> int:
        """A number that grows as long as work goes on; asked for from other threads too."""

    def peak_memory_bytes(self) -> int:
        """Return the most memory used."""


class Delivery(Protocol):
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

    def hang(self, pieces: Sequence[tuple[Path, Path | None]]) -> None:
        """Show what has a sidecar: results and rejected inputs, with their originals."""
