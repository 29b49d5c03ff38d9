"""The interface between the queue and an engine: tasks, the events of a run, and the engine.

Tasks and events are plain, picklable data, so that an engine may be a thread of this process,
another process or another machine. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from styled.degradation import Degradation
from styled.errors import StyledError
from styled.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor


OnBytes = Callable[[int, int], None]
"""Called during a download with the bytes received and the bytes in total (0: not known yet); an
exception aborts it."""


class PixelSize(NamedTuple):
    """The size of an image, in pixels."""

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
    """One picture to paint, and which events to report.

    Attributes:
        job_id: Identifies the task in `Engine.stop`.
        content: 1x3xHxW float32, sRGB in [0, 1], at the size of the result; or 1x4xHxW with
            opacity.
        styles: 1x3xHxW float32, sRGB in [0, 1], or 1x4xHxW, each with its weight.
        init: The initial image, 1x3xHxW float32, sRGB in [0, 1], of any size; None: as the recipe
            says.
        painted_size: Paint at this size, smaller than the content's, then add detail at the
            content's own size. None: paint at the content's size.
        recipe: The recipe to paint with.
        progress_seconds: Minimum time between two `Progress` events; the first step and the end
            of a scale are always reported.
        checkpoint_seconds: Minimum time between two checkpoints. None: only on a stop.
        preview_seconds: Minimum time between two `Preview` events. None: no previews.
        preview_px: Maximum long edge of a preview.
        frame_every_steps: Number of steps between two `Frame` events. None: no frames.
        frame_px: Maximum long edge of a frame.
    """

    job_id: str
    content: Tensor
    styles: tuple[tuple[Tensor, float], ...]
    recipe: Recipe
    painted_size: PixelSize | None = None
    init: Tensor | None = None
    progress_seconds: float = 1.0
    checkpoint_seconds: float | None = 60.0
    preview_seconds: float | None = None
    preview_px: int = 256
    frame_every_steps: int | None = None
    frame_px: int = 1920

    def loaded(self) -> PaintTask:
        """Return the task with its images in this process; subclasses fetch them from elsewhere.

        Raises:
            NodeLost: they were on a machine that is gone.
        """
        return self


@dataclass(frozen=True, slots=True)
class Resumed:
    """The task resumes from its checkpoint; always the first event of a run."""

    scale: int
    step: int


@dataclass(frozen=True, slots=True)
class CheckpointIgnored:
    """The given checkpoint can't be used: the task starts from the beginning."""

    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a picture after a step.

    Attributes:
        plan: The size of each scale, coarse to fine.
        budget: The step limit of each scale.
        scale: The current scale, counted from one.
        step: Steps done at this scale.
        finished: Whether this was the last step at this scale.
        loss: The weighted total of the image that the step started from.
        first_step_seconds: Duration of the first step of this scale, including style targets.
        step_seconds: Median duration of its latest steps; None after the first step.
        expected_steps: After how many steps this scale is expected to converge, without its limit.
            None: it does not end early, or that is not known yet.
    """

    plan: tuple[PixelSize, ...]
    budget: tuple[int, ...]
    scale: int
    step: int
    finished: bool
    loss: float
    first_step_seconds: float
    step_seconds: float | None
    expected_steps: float | None = None

    @property
    def scales(self) -> int:
        """The number of scales."""
        return len(self.plan)

    @property
    def steps(self) -> int:
        """The step limit of the current scale."""
        return self.budget[self.scale - 1]

    @property
    def size(self) -> PixelSize:
        """The size of the current scale."""
        return self.plan[self.scale - 1]

    @property
    def fraction(self) -> float:
        """The share of all work that is done, in pixels times steps, in [0, 1]."""
        work = [
            size.width * size.height * steps
            for size, steps in zip(self.plan, self.budget, strict=True)
        ]
        scale_fraction = 1.0 if self.finished else self.step / self.steps
        return (sum(work[: self.scale - 1]) + work[self.scale - 1] * scale_fraction) / sum(work)


@dataclass(frozen=True, slots=True)
class Preview:
    """A small version of the current picture: 1x3xHxW float32 on the CPU, sRGB in [0, 1]."""

    image: Tensor


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of the time-lapse of a painting.

    Attributes:
        number: The number of steps taken at all scales so far.
        image: 1x3xHxW float32 on the CPU, sRGB in [0, 1]; all frames of a task have one size.
    """

    number: int
    image: Tensor


@dataclass(frozen=True, slots=True)
class Degraded:
    """The degradations have changed; contains all degradations so far."""

    degraded: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True)
class CheckpointPiece:
    """A part of a checkpoint, in order. Without the last one the checkpoint is incomplete."""

    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class Painted:
    """The task is done.

    Attributes:
        image: 1x3xHxW float32 on the CPU, sRGB in [0, 1].
        trace: Losses every `trace_every` steps, and at the first and last step of each scale.
        degraded: All degradations of the run.
        tile_px: The longest edge of the tiles used at the end; None: the whole image at once.
        precision: The dtype of the convolutions at the end.
        detail_steps: Steps taken at the full size, after the painting was enlarged.
        resumed: Whether the run was resumed from a checkpoint.
        peak_memory_bytes: The engine's peak memory during the run.
    """

    image: Tensor
    trace: tuple[TraceRow, ...]
    degraded: tuple[Degradation, ...] = ()
    tile_px: int | None = None
    precision: str = "float32"
    detail_steps: int = 0
    resumed: bool = False
    peak_memory_bytes: int = 0

    def loaded(self) -> Painted:
        """Return the painting with its pixels, wherever they are; see `styled.cluster`.

        Raises:
            NodeLost: they were on a machine that is gone.
        """
        return self

    @property
    def steps(self) -> int:
        """The number of steps taken at all scales."""
        return sum({row.scale: row.step for row in self.trace}.values())


@dataclass(frozen=True, slots=True)
class Stopped:
    """The task was stopped; its checkpoint was sent before, unless no step was finished."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task has failed.

    Attributes:
        error: `EngineFailure`: the next attempt may succeed. `DeviceLost`: the engine can't be
            used any more. Anything else is a bug in the program.
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
    """Properties of an engine, for logs, `styled status` and sidecars.

    Attributes:
        weights_source: `imagenet`, `untrained` or a file's path.
        weights_sha256: Hexadecimal digest of the convolutions.
        device: As torch names it, such as `cuda:0`.
        device_model: As its manufacturer names it.
        precision: The dtype of the convolutions where the recipe does not require float32.
        torch: torch's version.
        threads: torch's intra-op thread count while it paints.
        degraded: The degradations of the engine itself.
        deterministic: Whether deterministic algorithms are used; None: the device has no choice.
        node: The machine of the cluster that it runs on; None: that of the daemon.
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
    node: str | None = None

    @property
    def location(self) -> str:
        """Device and node, as shown to people."""
        return self.device if self.node is None else f"{self.device} of {self.node}"


class Engine(Protocol):
    """Paints one picture at a time."""

    @property
    def info(self) -> EngineInfo:
        """The properties of the engine."""

    @property
    def ops_done(self) -> int:
        """A counter that grows while work is in progress; may be read from any thread."""

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        """Paint, from the start or from a checkpoint.

        Args:
            task: What to paint.
            checkpoint: The concatenated pieces of an earlier run's last checkpoint.
        """

    def stop(self, job_id: str) -> None:
        """Stop this task, and no other, after its next step; may be called from any thread."""

    def check(self) -> None:
        """Check, while no task runs, that the engine can still be used.

        Raises:
            StyledError: it can't: its process or its machine is gone.
        """

    def close(self) -> None:
        """Release the engine's resources."""


class EngineFactory(Protocol):
    """Makes a slot's engine, and its replacement after a loss."""

    @property
    def can_replace(self) -> bool:
        """Whether a lost engine can be replaced within this process."""

    def make(self) -> Engine:
        """Make an engine; called in the thread that the engine will run in.

        Raises:
            StyledError: no engine can be made.
        """
