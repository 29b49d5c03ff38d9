"""What `stylize` yields after every step, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from styled.degradation import Degradation
from styled.engine.checkpoint import Checkpoint
from styled.engine.objective import Losses
from styled.engine_api import TraceRow


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Where a picture stands after one step.

    Attributes:
        plan: Width and height of each scale in pixels, from coarse to fine.
        scale: The current scale, counted from one.
        step: Steps done at this scale, of `steps` at most.
        finished: Whether this was the last step at this scale.
        losses: Of the image that this step started from.
        checkpoint: Takes a checkpoint; valid only until the next step.
        preview: Returns the current picture, 1x3xhxw float32 on the CPU, sRGB in [0, 1], with a
            long edge of at most the given number of pixels; valid only until the next step.
        budget: The step limit of each scale of the plan; empty: `steps` for each.
        degraded: The degradations so far.
        expected_steps: After how many steps this scale is expected to converge, without its limit.
            None: it does not end early, or that is not known yet.
    """

    plan: tuple[tuple[int, int], ...]
    scale: int
    step: int
    steps: int
    finished: bool
    losses: Losses
    checkpoint: Callable[[], Checkpoint]
    preview: Callable[[int], Tensor]
    budget: tuple[int, ...] = ()
    degraded: tuple[Degradation, ...] = ()
    expected_steps: float | None = None

    @property
    def scales(self) -> int:
        """The number of scales."""
        return len(self.plan)

    @property
    def width(self) -> int:
        """The width of the current scale, in pixels."""
        return self.plan[self.scale - 1][0]

    @property
    def height(self) -> int:
        """The height of the current scale, in pixels."""
        return self.plan[self.scale - 1][1]

    @property
    def fraction(self) -> float:
        """The share of all work that is done, in pixels times steps, in [0, 1]."""
        work = [
            width * height * self.steps_at(scale)
            for scale, (width, height) in enumerate(self.plan, start=1)
        ]
        scale_fraction = 1.0 if self.finished else self.step / self.steps
        done = sum(work[: self.scale - 1]) + work[self.scale - 1] * scale_fraction
        return done / sum(work)

    def steps_at(self, scale: int) -> int:
        """Return the step limit of a scale."""
        return self.budget[scale - 1] if self.budget else self.steps


@dataclass(frozen=True, slots=True)
class Stylized:
    """A finished picture.

    Attributes:
        image: 1x3xHxW float32 on the CPU, sRGB in [0, 1].
        trace: Losses every `trace_every` steps, and at the first and last step of each scale.
        degraded: All degradations of the run.
        tile_px: The longest edge of the tiles used at the end; None: the whole picture at once.
        precision: The dtype of the convolutions at the end.
        detail_steps: Steps taken at the full size, after the picture was enlarged.
    """

    image: Tensor
    trace: tuple[TraceRow, ...]
    degraded: tuple[Degradation, ...] = ()
    tile_px: int | None = None
    precision: str = "float32"
    detail_steps: int = 0

    @property
    def steps(self) -> int:
        """Steps taken at all scales together."""
        return sum({row.scale: row.step for row in self.trace}.values())
