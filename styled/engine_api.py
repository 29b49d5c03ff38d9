"""What the queue and an engine agree on: tasks, the events of a run, and the engine itself.

All of it is plain, picklable data, so that an engine may be a thread of this process, another
process or another machine. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from styled.degradation import Degradation
from styled.errors import StyledError
from styled.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor


class PixelSize(NamedTuple):
    """Of an image, in pixels."""

    width: int
    height: int


class TraceRow(NamedTuple):
    """The weighted losses at one step; scales and steps count from one."""

    scale: int
    step: int
    total: float
    content: float
    style: float
    tv: float


@dataclass(frozen=True, slots=True)
class PaintTask:
    """One picture to paint, and what the engine is to report meanwhile.

    Attributes:
        job_id: Names the task in `Engine.stop`.
        content: 1x3xHxW float32, sRGB in [0, 1], at the size of the result; or 1x4xHxW with
            opacity.
        styles: 1x3xHxW float32, sRGB in [0, 1], or 1x4xHxW, each with its weight.
        painted_size: Paint at this size, smaller than the content's, then add detail at the
            content's own size. None: paint at the content's size.
        progress_seconds: Between two `Progress` events; the first step and the end of a scale are
            always reported.
        checkpoint_seconds: Between two checkpoints at least. None: none, except on a stop.
        preview_seconds: Between two `Preview` events. None: no previews.
        preview_px: The long edge of a preview, at most.
        frame_every_steps: Every so many steps one `Frame`. None: no frames.
        frame_px: The long edge of a frame, at most.
    """

    job_id: str
    content: Tensor
    styles: tuple[tuple[Tensor, float], ...]
    recipe: Recipe
    painted_size: PixelSize | None = None
    progress_seconds: float = 1.0
    checkpoint_seconds: float | None = 60.0
    preview_seconds: float | None = None
    preview_px: int = 256
    frame_every_steps: int | None = None
    frame_px: int = 1920


@dataclass(frozen=True, slots=True)
class Resumed:
    """The task goes on from its checkpoint; this comes first, if at all."""

    scale: int
    step: int


@dataclass(frozen=True, slots=True)
class CheckpointIgnored:
    """There was a checkpoint, but it can't be used: the task begins anew."""

    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the picture stands after a step.

    Attributes:
        plan: The size of each scale, coarse to fine.
        budget: How many steps each scale may take.
        scale: The current scale, counted from one.
        step: Steps done at this scale.
        finished: Whether this was the last step at this scale.
        loss: The weighted total, of the image that the step started from.
        first_step_seconds: How long the first step of this scale took: it computes targets too.
        step_seconds: How long its latest steps took, the median; None after the first.
    """

    plan: tuple[PixelSize, ...]
    budget: tuple[int, ...]
    scale: int
    step: int
    finished: bool
    loss: float
    first_step_seconds: float
    step_seconds: float | None

    @property
    def scales(self) -> int:
        """How many scales there are."""
        return len(self.plan)

    @property
    def steps(self) -> int:
        """How many steps this scale may take."""
        return self.budget[self.scale - 1]

    @property
    def size(self) -> PixelSize:
        """Of the current scale."""
        return self.plan[self.scale - 1]

    @property
    def fraction(self) -> float:
        """How much of the whole work is done, by pixels times steps, in [0, 1]."""
        work = [
            size.width * size.height * steps
            for size, steps in zip(self.plan, self.budget, strict=True)
        ]
        here = 1.0 if self.finished else self.step / self.steps
        return (sum(work[: self.scale - 1]) + work[self.scale - 1] * here) / sum(work)


@dataclass(frozen=True, slots=True)
class Preview:
    """The picture as it is now, small: 1x3xHxW float32 on the CPU, sRGB in [0, 1]."""

    image: Tensor


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of the film of a painting.

    Attributes:
        number: How many steps have been taken at all scales together.
        image: 1x3xHxW float32 on the CPU, sRGB in [0, 1]; all frames of a task have one size.
    """

    number: int
    image: Tensor


@dataclass(frozen=True, slots=True)
class Degraded:
    """Something had to be given up; these are all that have been so far."""

    degradations: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True)
class CheckpointPiece:
    """A part of a checkpoint, in order; without the last one it is worth nothing."""

    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class Painted:
    """The task is done.

    Attributes:
        image: 1x3xHxW float32 on the CPU, sRGB in [0, 1].
        trace: Losses every `trace_every` steps, and at the first and last step of each scale.
        degradations: What had to be given up on the way.
        tile_px: The long edge of the tiles that were used at last; None: the whole image.
        precision: What convolutions computed in at last.
        detail_steps: Steps taken beyond the size that it was painted at.
        resumed: Whether it went on from a checkpoint.
        peak_memory_bytes: The most memory that the engine used meanwhile.
    """

    image: Tensor
    trace: tuple[TraceRow, ...]
    degradations: tuple[Degradation, ...] = ()
    tile_px: int | None = None
    precision: str = "float32"
    detail_steps: int = 0
    resumed: bool = False
    peak_memory_bytes: int = 0

    @property
    def steps(self) -> int:
        """Steps taken at all scales together."""
        return sum({row.scale: row.step for row in self.trace}.values())


@dataclass(frozen=True, slots=True)
class Stopped:
    """The task was stopped; its checkpoint, where it has come so far, was sent before."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task has failed.

    Attributes:
        error: `EngineFailure`: the next attempt may succeed. `DeviceLost`: the engine is of no
            use any more. Anything else is a fault of the program.
    """

    error: StyledError


EngineEvent = (
    Resumed
    | CheckpointIgnored
    | Progress
    | Preview
    | Frame
    | Degraded
    | CheckpointPiece
    | Painted
    | Stopped
    | Failed
)
"""`Painted`, `Stopped` or `Failed` is the last event of a run."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for logs, `styled status` and sidecars.

    Attributes:
        device: As torch names it, such as `cuda:0`.
        device_model: As its maker names it.
        precision: What convolutions compute in where the recipe allows it.
        degraded: In which ways the engine is less than what was asked for.
        threads: torch's intra-op threads while it paints.
        deterministic: Whether deterministic algorithms were chosen; None: there is no choice.
    """

    weights_source: str
    weights_sha256: str
    device: str
    device_model: str
    precision: str
    torch: str
    threads: int
    degraded: tuple[Degradation, ...] = ()
    deterministic: bool | None = None


class Engine(Protocol):
    """Paints one picture at a time."""

    @property
    def info(self) -> EngineInfo:
        """What the engine is."""

    @property
    def ops_done(self) -> int:
        """A number that grows as long as work goes on; read by other threads too."""

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        """Paint, from the start or from a checkpoint.

        Args:
            checkpoint: The pieces of an earlier run's last checkpoint, one after the other.
        """

    def stop(self, job_id: str) -> None:
        """Stop that task at its next step; safe from any thread. No other task is stopped."""

    def close(self) -> None:
        """Give back what the engine holds."""
